import { listen } from "./emitter.js";

const DISCONNECTED_MS = 2_000;
const CHECKING_MS = 15_000;
const POLITE_EXTRA_MS = 1_000;
const PATIENCE_MS = [5_000, 10_000, 15_000];
const UNHURT = new Set(["connected", "completed", "closed"]);

/**
 * Restarts ICE when the path between the peers died, and again until there is one.
 *
 * Both states of the RTCPeerConnection are looked at: Chromium may say `failed` in `connectionState` while
 * `iceConnectionState` stays `disconnected`, and then changes nothing any more. `disconnected` often passes by itself
 * and is given two seconds. After a restart the states are looked at again, because the network may have gone for
 * longer, or the offer may have been lost. The polite side is a second slower: mostly one of the two is enough.
 */
export class IceRecovery {
  #pc;
  #timers;
  #extraMs;
  #restart;
  #suspect;
  #stopListening;
  #timer = null;
  #restarts = 0;
  #isPaused = true;

  /**
   * @param {RTCPeerConnection} pc
   * @param {object} options
   * @param {boolean} options.polite
   * @param {{setTimeout: Function, clearTimeout: Function}} options.timers
   * @param {() => void} options.restart
   * @param {() => void} options.suspect the path has died; so may have the connection to the node
   */
  constructor(pc, { polite, timers, restart, suspect }) {
    this.#pc = pc;
    this.#timers = timers;
    this.#extraMs = polite ? POLITE_EXTRA_MS : 0;
    this.#restart = restart;
    this.#suspect = suspect;
    const look = () => this.#look();
    this.#stopListening = listen(pc, { iceconnectionstatechange: look, connectionstatechange: look });
  }

  /** The peer cannot hear an offer. */
  pause() {
    this.#isPaused = true;
    this.#cancel();
  }

  /** It can (again). */
  resume() {
    this.#isPaused = false;
  }

  /** Restarts what is not connected by now, even if it is only slow: what it waits for may have been lost. */
  heal() {
    if (this.#pc.remoteDescription && !this.#isHealthy) this.#recover();
  }

  close() {
    this.pause();
    this.#stopListening();
  }

  get #isHealthy() {
    const { iceConnectionState, connectionState } = this.#pc;
    return UNHURT.has(iceConnectionState) && connectionState !== "failed" && connectionState !== "disconnected";
  }

  #look() {
    if (this.#isHealthy) {
      this.#restarts = 0;
      return this.#cancel();
    }
    const states = [this.#pc.iceConnectionState, this.#pc.connectionState];
    const isBroken = states.includes("failed") || states.includes("disconnected");
    if (isBroken) this.#suspect();
    // A restart is under way: its own patience counts. But what fails for the first time need not wait it out.
    if (this.#restarts > 0 || (!isBroken && !states.includes("checking"))) return;
    const patience = states.includes("failed") ? 0 : isBroken ? DISCONNECTED_MS : CHECKING_MS;
    this.#schedule(patience + this.#extraMs);
  }

  #schedule(ms) {
    this.#cancel();
    if (this.#isPaused) return;
    if (ms === 0) this.#recover();
    else this.#timer = this.#timers.setTimeout(() => this.#recover(), ms);
  }

  #recover() {
    if (this.#isHealthy) return;
    const patience = PATIENCE_MS[Math.min(this.#restarts, PATIENCE_MS.length - 1)];
    this.#restarts += 1;
    this.#schedule(patience);
    this.#restart();
  }

  #cancel() {
    this.#timers.clearTimeout(this.#timer);
    this.#timer = null;
  }
}

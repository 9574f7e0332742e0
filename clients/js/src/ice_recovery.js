import { listen } from "./emitter.js";

const DISCONNECTED_MS = 2_000;
const CHECKING_MS = 15_000;
const POLITE_EXTRA_MS = 1_000;
const PATIENCE_MS = [5_000, 10_000, 15_000];
const UNHURT = new Set(["connected", "completed", "closed"]);

/**
 * Restarts ICE when the path between the peers is lost, and again until there is one.
 *
 * This watches both states of the RTCPeerConnection: in Chromium `connectionState` may become `failed` while
 * `iceConnectionState` stays `disconnected`, and neither changes again. `disconnected` often recovers by itself, so it
 * gets two seconds. After a restart the states are checked again, because the network may still be gone or the offer
 * may have been lost. The polite side waits a second longer, because one restart is usually enough.
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
   * @param {() => void} options.suspect the path is lost; the connection to the node may be, too
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

  /** The peer is unreachable for offers. */
  pause() {
    this.#isPaused = true;
    this.#cancel();
  }

  /** The peer is reachable (again). */
  resume() {
    this.#isPaused = false;
  }

  /** Restarts ICE if it is not connected by now, even if it is only slow: signals may have been lost. */
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
    // If a restart is in progress, its own timer decides. A first `failed` is handled at once.
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

import { Deferred } from "./deferred.js";

const MAX_EARLY_CANDIDATES = 64;
const ROLLBACK_PATIENCE_MS = 500;

/**
 * Perfect negotiation for one RTCPeerConnection, after the pattern of the WebRTC specification
 * (https://www.w3.org/TR/webrtc/#perfect-negotiation-example): either side may offer at any time; when two offers
 * meet, the polite side takes its own back and the impolite side ignores the other one.
 *
 * Added to the pattern, because signals can get lost here while one side is away: offers are made only while the
 * peer can hear us (between `resume` and `pause`), an unanswered offer is repeated on `resume`, signals are
 * handled one after the other, and candidates wait for the description they belong to. And because Chromium never
 * gathers a candidate again when the first offer of a page is taken back before its network is enumerated (a
 * matter of milliseconds, which only another RTCPeerConnection mends), and keeps the ids of header extensions that
 * were taken back with it (they may collide with those of another browser), the polite side begins anew with another
 * RTCPeerConnection where nothing was agreed on yet; with one of the app's own it waits for a candidate first.
 */
export class Negotiator {
  #pc;
  #polite;
  #send;
  #report;
  #timers;
  #beginAnew;
  #successor = null;
  #listening = new AbortController();
  #gathered = new Deferred();
  #incoming = Promise.resolve();
  #early = [];
  #makingOffer = false;
  #ignoringOffer = false;
  #reachable = false;
  #offerDue = false;

  /**
   * @param {RTCPeerConnection} pc
   * @param {object} options
   * @param {boolean} options.polite
   * @param {(data: object) => void} options.send
   * @param {(cause: unknown) => void} options.report
   * @param {{setTimeout: Function, clearTimeout: Function}} options.timers
   * @param {() => Negotiator | null} [options.beginAnew] closes this negotiator and its RTCPeerConnection in favour of
   *   others; null when they are to stay
   */
  constructor(pc, { polite, send, report, timers, beginAnew = () => null }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#send = send;
    this.#report = report;
    this.#timers = timers;
    this.#beginAnew = beginAnew;
    const { signal } = this.#listening;
    pc.addEventListener("negotiationneeded", () => this.#negotiate(), { signal });
    pc.addEventListener("icecandidate", ({ candidate }) => this.#offerCandidate(candidate), { signal });
    pc.addEventListener("iceconnectionstatechange", () => this.#healIce(["failed"]), { signal });
  }

  get #closed() {
    return this.#listening.signal.aborted;
  }

  /** The peer hears us (again): say what may have been lost, heal what broke meanwhile. */
  resume() {
    this.#reachable = true;
    if (this.#pc.signalingState === "have-local-offer" && !this.#makingOffer) this.#sendDescription();
    if (this.#pc.remoteDescription) this.#healIce(["new", "checking", "disconnected", "failed"]);
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** Begins with the peer's offer; an offer of our own waits until it is answered. */
  async takeOver(description) {
    await this.receive({ description });
    this.#reachable = true;
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** The peer cannot hear us: offers wait for `resume`. */
  pause() {
    this.#reachable = false;
  }

  /** Handles the peer's `{description}` or `{candidate}`, after those that came before it. */
  receive(data) {
    const handled = this.#incoming.then(() => this.#handle(data));
    this.#incoming = handled.catch((cause) => this.#fail(cause));
    return this.#incoming;
  }

  /** Lets go of the RTCPeerConnection without closing it. */
  close() {
    this.#listening.abort();
    this.#early.length = 0;
  }

  #offerCandidate(candidate) {
    this.#gathered.resolve();
    if (candidate) this.#send({ candidate });
  }

  async #untilGathered() {
    const timer = this.#timers.setTimeout(() => this.#gathered.resolve(), ROLLBACK_PATIENCE_MS);
    await this.#gathered.promise;
    this.#timers.clearTimeout(timer);
  }

  async #negotiate() {
    this.#offerDue = !this.#reachable;
    if (this.#offerDue) return;
    try {
      this.#makingOffer = true;
      await this.#pc.setLocalDescription();
      this.#sendDescription();
    } catch (cause) {
      this.#fail(cause);
    } finally {
      this.#makingOffer = false;
    }
  }

  #fail(cause) {
    if (!this.#closed) this.#report(cause);
  }

  #sendDescription() {
    const description = this.#pc.localDescription;
    if (description && !this.#closed) this.#send({ description: { type: description.type, sdp: description.sdp } });
  }

  #healIce(states) {
    if (states.includes(this.#pc.iceConnectionState)) this.#pc.restartIce();
  }

  async #handle(data) {
    if (this.#successor) return this.#successor.receive(data);
    if (this.#closed) return;
    const { description, candidate } = data;
    if (description) await this.#setDescription(description);
    else if (candidate) await this.#addCandidate(candidate);
  }

  async #setDescription(description) {
    const pc = this.#pc;
    const collision = description.type === "offer" && (this.#makingOffer || pc.signalingState !== "stable");
    this.#ignoringOffer = collision && !this.#polite;
    if (this.#ignoringOffer) return;
    if (collision && !pc.remoteDescription) this.#successor = this.#beginAnew();
    if (this.#successor) return this.#successor.takeOver(description);
    if (collision) await this.#untilGathered();
    if (this.#closed) return;
    // A repeated offer is answered twice; the second answer has nothing left to answer.
    if (description.type === "answer" && pc.signalingState === "stable") return;
    await pc.setRemoteDescription(description);
    for (const candidate of this.#early.splice(0)) await this.#addCandidate(candidate);
    if (description.type !== "offer" || this.#closed) return;
    await pc.setLocalDescription();
    this.#offerDue = false; // what the answer did not settle is asked for again by `negotiationneeded`
    this.#sendDescription();
  }

  async #addCandidate(candidate) {
    if (!this.#belongs(candidate)) {
      this.#early.push(candidate);
      if (this.#early.length > MAX_EARLY_CANDIDATES) this.#early.shift();
      return;
    }
    try {
      await this.#pc.addIceCandidate(candidate);
    } catch (cause) {
      if (!this.#ignoringOffer) throw cause; // Candidates of an offer that we ignore fit nothing.
    }
  }

  #belongs({ usernameFragment }) {
    const remote = this.#pc.remoteDescription;
    if (!remote) return false;
    return !usernameFragment || remote.sdp.split(/\r?\n/).includes(`a=ice-ufrag:${usernameFragment}`);
  }
}

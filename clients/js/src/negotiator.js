import { Deferred } from "./deferred.js";
import { listen } from "./emitter.js";
import { IceRecovery } from "./ice_recovery.js";

const MAX_EARLY_CANDIDATES = 64;
const ROLLBACK_PATIENCE_MS = 500;
const ANSWER_PATIENCE_MS = [5_000, 10_000, 20_000, 40_000];

/**
 * Perfect negotiation for one RTCPeerConnection, after the pattern of the WebRTC specification
 * (https://www.w3.org/TR/webrtc/#perfect-negotiation-example): either side may offer at any time; when two offers
 * meet, the polite side takes its own back and the impolite side ignores the other one.
 *
 * Added to the pattern, because signals can get lost here while one side is away: offers are made only while the
 * peer can hear us (between `resume` and `pause`), an unanswered offer is repeated on `resume` and after a while,
 * signals are handled one after the other, and candidates wait for the description they belong to. An offer that is
 * too large to be sent is taken back, and not made again before tracks have changed. And because Chromium never
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
  #recovery;
  #suspect;
  #successor = null;
  #closed = false;
  #stopListening;
  #answerTimer = null;
  #unanswered = 0; // how often the offer was repeated
  #tooLarge = null; // the tracks of an offer that could not be sent
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
   * @param {() => void} [options.suspect] media failed, or no answer came: is the connection to the node alive?
   * @param {{setTimeout: Function, clearTimeout: Function}} options.timers
   * @param {() => Negotiator | null} [options.beginAnew] closes this negotiator and its RTCPeerConnection in favour of
   *   others; null when they are to stay
   */
  constructor(pc, { polite, send, report, suspect = () => {}, timers, beginAnew = () => null }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#send = send;
    this.#report = report;
    this.#suspect = suspect;
    this.#timers = timers;
    this.#beginAnew = beginAnew;
    this.#stopListening = listen(pc, {
      negotiationneeded: () => this.#negotiate(),
      icecandidate: ({ candidate }) => this.#offerCandidate(candidate),
    });
    this.#recovery = new IceRecovery(pc, { polite, timers, suspect, restart: () => this.#restartIce() });
  }

  /** The peer hears us (again): say what may have been lost, heal what broke meanwhile. */
  resume() {
    this.#reachable = true;
    this.#unanswered = 0;
    if (this.#isUnanswered && !this.#makingOffer) this.#sendDescription();
    this.#recovery.resume();
    this.#recovery.heal();
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** Begins with the peer's offer; an offer of our own waits until it is answered. */
  async takeOver(description) {
    await this.receive({ description });
    if (this.#closed) return;
    this.#reachable = true;
    this.#recovery.resume();
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** The tracks have changed, of which the browser says nothing while an offer is due. */
  reconsider() {
    if (this.#tooLarge !== null && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** The peer cannot hear us: offers wait for `resume`. */
  pause() {
    this.#reachable = false;
    this.#recovery.pause();
    this.#timers.clearTimeout(this.#answerTimer);
  }

  /** Handles the peer's `{description}` or `{candidate}`, after those that came before it. */
  receive(data) {
    const handled = this.#incoming.then(() => this.#handle(data));
    this.#incoming = handled.catch((cause) => this.#fail(cause));
    return this.#incoming;
  }

  /** Lets go of the RTCPeerConnection without closing it. */
  close() {
    this.pause();
    this.#closed = true;
    this.#stopListening();
    this.#recovery.close();
    this.#early.length = 0;
  }

  get #isUnanswered() {
    return this.#pc.signalingState === "have-local-offer";
  }

  #offerCandidate(candidate) {
    this.#gathered.resolve();
    if (candidate && this.#tooLarge === null) this.#send({ candidate });
  }

  async #untilGathered() {
    const timer = this.#timers.setTimeout(() => this.#gathered.resolve(), ROLLBACK_PATIENCE_MS);
    await this.#gathered.promise;
    this.#timers.clearTimeout(timer);
  }

  async #negotiate() {
    this.#offerDue = !this.#reachable || this.#tooLarge === this.#tracks;
    if (this.#offerDue) return;
    try {
      this.#makingOffer = true;
      await this.#pc.setLocalDescription();
      this.#tooLarge = null;
      this.#sendDescription();
    } catch (cause) {
      if (cause?.code === "too_large") await this.#takeBack();
      this.#fail(cause);
    } finally {
      this.#makingOffer = false;
    }
  }

  /** An offer that cannot be sent; what it was made for is remembered, because the browser asks for it again. */
  async #takeBack() {
    if (this.#closed || !this.#isUnanswered) return;
    this.#tooLarge = this.#tracks;
    await this.#pc.setLocalDescription({ type: "rollback" }).catch((cause) => this.#fail(cause));
  }

  get #tracks() {
    const senders = this.#pc.getSenders().map(({ track }) => track?.id ?? "");
    return [...senders, this.#pc.getTransceivers?.().map(({ direction }) => direction)].join();
  }

  #fail(cause) {
    if (!this.#closed) this.#report(cause);
  }

  #sendDescription() {
    const description = this.#pc.localDescription;
    if (!description || this.#closed) return;
    this.#send({ description: { type: description.type, sdp: description.sdp } });
    if (description.type === "offer") this.#awaitAnswer();
  }

  #awaitAnswer() {
    this.#timers.clearTimeout(this.#answerTimer);
    const patience = ANSWER_PATIENCE_MS[Math.min(this.#unanswered, ANSWER_PATIENCE_MS.length - 1)];
    this.#answerTimer = this.#timers.setTimeout(() => this.#repeatOffer(), patience);
  }

  #repeatOffer() {
    if (!this.#isUnanswered || this.#makingOffer) return;
    this.#unanswered += 1;
    this.#suspect();
    this.#sendDescription();
  }

  #restartIce() {
    if (!this.#isUnanswered) this.#pc.restartIce(); // else the offer under way is repeated until it is answered
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
    this.#timers.clearTimeout(this.#answerTimer);
    this.#unanswered = 0;
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

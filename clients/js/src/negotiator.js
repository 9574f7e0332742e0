import { Deferred } from "./deferred.js";
import { listen } from "./emitter.js";
import { IceRecovery } from "./ice_recovery.js";

const MAX_EARLY_CANDIDATES = 64;
const ROLLBACK_PATIENCE_MS = 500;
const ANSWER_PATIENCE_MS = [5_000, 10_000, 20_000, 40_000];

/**
 * Perfect negotiation for one RTCPeerConnection, after the pattern in the WebRTC specification
 * (https://www.w3.org/TR/webrtc/#perfect-negotiation-example): either side may offer at any time. If two offers
 * collide, the polite side rolls back its own and the impolite side ignores the other one.
 *
 * Signals can get lost here while one side is away, so this adds to the pattern:
 *
 * - Offers are made only while the peer is reachable (between `resume` and `pause`).
 * - An unanswered offer is repeated on `resume` and after a timeout.
 * - Signals are processed in sequence, and candidates wait for their description.
 * - An offer that is too large to send is rolled back, and not made again until the tracks change.
 *
 * Two bugs in Chromium need a workaround. If the first offer of a page is rolled back before the network is enumerated,
 * within milliseconds, that RTCPeerConnection never gathers candidates again. And it keeps the ids of header extensions
 * from the rolled-back offer, which may collide with those of another browser. So if nothing was agreed on yet, the
 * polite side replaces its RTCPeerConnection instead of rolling back. If that belongs to the app, it waits for a
 * candidate before it rolls back.
 */
export class Negotiator {
  #pc;
  #polite;
  #send;
  #report;
  #timers;
  #renew;
  #recovery;
  #suspect;
  #successor = null;
  #closed = false;
  #stopListening;
  #answerTimer = null;
  #unanswered = 0; // repetitions of the current offer
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
   * @param {() => Negotiator | null} [options.renew] replaces this negotiator and its RTCPeerConnection; null if they
   *   have to stay
   */
  constructor(pc, { polite, send, report, suspect = () => {}, timers, renew = () => null }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#send = send;
    this.#report = report;
    this.#suspect = suspect;
    this.#timers = timers;
    this.#renew = renew;
    this.#stopListening = listen(pc, {
      negotiationneeded: () => this.#negotiate(),
      icecandidate: ({ candidate }) => this.#offerCandidate(candidate),
    });
    this.#recovery = new IceRecovery(pc, { polite, timers, suspect, restart: () => this.#restartIce() });
  }

  /** The peer is reachable (again): repeat what may have been lost, and repair the path. */
  resume() {
    this.#reachable = true;
    this.#unanswered = 0;
    if (this.#isUnanswered && !this.#makingOffer) this.#sendDescription();
    this.#recovery.resume();
    this.#recovery.heal();
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** Starts with the peer's offer. Our own offer waits until that is answered. */
  async takeOver(description) {
    await this.receive({ description });
    if (this.#closed) return;
    this.#reachable = true;
    this.#recovery.resume();
    if (this.#offerDue && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** The tracks have changed. The browser does not report that while an offer is due. */
  reconsider() {
    if (this.#tooLarge !== null && this.#pc.signalingState === "stable") this.#negotiate();
  }

  /** The peer is unreachable: offers wait for `resume`. */
  pause() {
    this.#reachable = false;
    this.#recovery.pause();
    this.#timers.clearTimeout(this.#answerTimer);
  }

  /** Processes the peer's `{description}` or `{candidate}`, in sequence. */
  receive(data) {
    const handled = this.#incoming.then(() => this.#handle(data));
    this.#incoming = handled.catch((cause) => this.#fail(cause));
    return this.#incoming;
  }

  /** Releases the RTCPeerConnection without closing it. */
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

  /** Rolls back an offer that cannot be sent. Remembers its tracks, because the browser requests it again. */
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
    if (!this.#isUnanswered) this.#pc.restartIce(); // otherwise the pending offer is repeated anyway
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
    if (collision && !pc.remoteDescription) this.#successor = this.#renew();
    if (this.#successor) return this.#successor.takeOver(description);
    if (collision) await this.#untilGathered();
    if (this.#closed) return;
    // A repeated offer may be answered twice. Ignore the second answer.
    if (description.type === "answer" && pc.signalingState === "stable") return;
    await pc.setRemoteDescription(description);
    this.#timers.clearTimeout(this.#answerTimer);
    this.#unanswered = 0;
    for (const candidate of this.#early.splice(0)) await this.#addCandidate(candidate);
    if (description.type !== "offer" || this.#closed) return;
    await pc.setLocalDescription();
    this.#offerDue = false; // if the answer does not settle everything, `negotiationneeded` fires again
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
      if (!this.#ignoringOffer) throw cause; // candidates of an ignored offer match no description
    }
  }

  #belongs({ usernameFragment }) {
    const remote = this.#pc.remoteDescription;
    if (!remote) return false;
    return !usernameFragment || remote.sdp.split(/\r?\n/).includes(`a=ice-ufrag:${usernameFragment}`);
  }
}

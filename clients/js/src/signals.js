import { Delivery } from "./delivery.js";
import { encodeFrame } from "./frames.js";
import { Outbox } from "./outbox.js";

/**
 * What one call says to its peer. Signals between two SDKs are `{description}` and `{candidate}` (with `to`, the peer's
 * stream they are meant for, once it is known), `{app}` for the app, and `{here}`, the presence note: it tells our
 * stream to the peer, and which stream of the peer we know. One that is not known correctly answers with a note of its
 * own, so after one exchange both know whom they talk to.
 *
 * Signals wait in the outbox while we or the peer are not there, and are numbered when they go.
 */
export class Signals {
  #roomId;
  #link;
  #handlers;
  #delivery;
  #outbox = new Outbox();
  #presenceDue = false;
  #flows = false;
  #turn = null; // what the outbox waits for

  /**
   * @param {string} roomId
   * @param {object} link
   * @param {object} handlers
   * @param {(data: unknown) => void} handlers.onApp
   * @param {(data: object) => void} handlers.onMedia
   * @param {(stream: string) => void} handlers.onNewPeer the peer is another instance than before
   * @param {() => void} handlers.onOutdated the peer has talked to another device of our user since
   */
  constructor(roomId, link, handlers) {
    this.#roomId = roomId;
    this.#link = link;
    this.#handlers = handlers;
    this.#delivery = new Delivery(link.environment.newId());
  }

  get isFlowing() {
    return this.#flows;
  }

  /** Whether the peer is an SDK, which tells by its stream when it begins anew. */
  get peerIsKnown() {
    return this.#delivery.peerStream !== null;
  }

  /** Both are there. */
  flow() {
    this.#flows = true;
    this.#tellPresence();
  }

  pause() {
    this.#flows = false;
    this.#turn = null;
  }

  /** The peer reads too slowly: what is sent waits for so long. */
  holdFor(ms) {
    const turn = (this.#turn = {});
    this.#link.environment.setTimeout(() => this.#turn === turn && this.#goOn(), ms);
  }

  /** The peer's side was taken back: perhaps by a device that was followed before. */
  hearRetired() {
    this.#delivery.forgetRetired();
  }

  sendMedia(data) {
    const to = this.#delivery.peerStream;
    this.send(to === null ? data : { ...data, to });
  }

  /** Throws a KeeplineError where the server would refuse it. */
  send(data) {
    const number = { stream: this.#delivery.stream, n: Number.MAX_SAFE_INTEGER }; // for the size only
    encodeFrame({ type: "signal", room: this.#roomId, ...number, data }, this.#link.limits());
    this.#outbox.push(data);
    this.#flush();
  }

  /** Forgets what was said about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#outbox.dropMedia();
  }

  receive({ stream, n, data }) {
    const verdict = this.#delivery.accept({ stream, n });
    if (verdict === "drop" || typeof data !== "object" || data === null) return;
    if (verdict === "changed") this.#handlers.onNewPeer(stream);
    if ("app" in data) this.#handlers.onApp(data.app);
    else if ("here" in data) this.#receiveNote(data.here);
    else if (data.to === undefined || data.to === this.#delivery.stream) this.#handlers.onMedia(data);
  }

  #receiveNote(knownStream) {
    if (knownStream === this.#delivery.stream) return;
    if (knownStream !== null) this.#handlers.onOutdated();
    this.#tellPresence();
  }

  #tellPresence() {
    this.#presenceDue = true;
    this.#flush();
  }

  get #hasToSend() {
    return this.#flows && (this.#presenceDue || !this.#outbox.isEmpty);
  }

  #flush() {
    if (this.#turn || !this.#hasToSend) return;
    const turn = (this.#turn = {});
    this.#link.whenFree(() => {
      if (this.#turn !== turn) return;
      if (this.#hasToSend) this.#writeNext();
      this.#goOn();
    });
  }

  #goOn() {
    this.#turn = null;
    this.#flush();
  }

  #writeNext() {
    const frame = JSON.stringify({ type: "signal", room: this.#roomId, ...this.#delivery.number() });
    const data = this.#presenceDue ? JSON.stringify({ here: this.#delivery.peerStream }) : this.#outbox.shift();
    this.#presenceDue = false;
    this.#link.write(`${frame.slice(0, -1)},"data":${data}}`);
  }
}

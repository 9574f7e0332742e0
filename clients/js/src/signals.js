import { Deferred } from "./deferred.js";
import { Delivery } from "./delivery.js";
import { KeeplineError } from "./errors.js";
import { encodeFrame } from "./frames.js";
import { Outbox } from "./outbox.js";

const WHY = {
  peer_gone: "The peer's page is gone; whether it had the signal is not known",
  too_large: "The node takes less than the one before it",
};

/**
 * One call's signals to and from its peer: the I/O around {@link Delivery}. Two SDKs exchange `{description}` and
 * `{candidate}` (with `to`, the peer's stream for which they are meant, once it is known), `{app}` for the app's data,
 * and the presence notes of `Delivery`.
 */
export class Signals {
  #roomId;
  #link;
  #handlers;
  #delivery;
  #turn = null; // the pending request for a turn to write
  #timer = null;
  #end = null; // the error for signals that will never arrive

  /**
   * @param {string} roomId
   * @param {object} link
   * @param {object} handlers
   * @param {(data: unknown) => void} handlers.onApp
   * @param {(data: object) => void} handlers.onMedia
   * @param {(stream: string) => void} handlers.onNewPeer the peer is a new instance
   * @param {() => void} handlers.onOutdated the peer has since talked to another of our user's devices
   */
  constructor(roomId, link, handlers) {
    this.#roomId = roomId;
    this.#link = link;
    this.#handlers = handlers;
    this.#delivery = new Delivery(roomId, link.environment.newId(), new Outbox(), handlers.onOutdated);
  }

  get isFlowing() {
    return this.#delivery.flows;
  }

  /** Whether the peer's stream is known. A reloaded peer then shows as another stream. */
  get peerIsKnown() {
    return this.#delivery.incoming.instance !== null;
  }

  /** Both sides are present. */
  flow() {
    this.#delivery.frameBytes = this.#link.limits().frame_bytes;
    this.#delivery.flow(this.#now);
    this.#pump();
  }

  pause() {
    this.#delivery.pause();
    this.#turn = null;
    this.#schedule();
  }

  /** The peer reads too slowly: signals wait for `ms`. */
  holdFor(ms) {
    this.#delivery.hold(this.#now + ms);
    this.#pump();
  }

  peerLeft() {
    this.#delivery.peerLeft();
  }

  /** The peer's side reconnected, possibly from a device that was followed earlier. */
  hearRetired() {
    this.#delivery.incoming.hearRetired();
  }

  sendMedia(data) {
    const to = this.#delivery.incoming.stream;
    this.#push(to === null ? data : { ...data, to }, { media: true });
  }

  /** Sends the app's data. Resolves when the peer has it. */
  send(data) {
    const arrived = new Deferred();
    const settle = (code) => (code === null ? arrived.resolve() : arrived.reject(this.#end ?? this.#error(code)));
    try {
      if (this.#end) throw this.#end;
      this.#push({ app: data }, { settle });
    } catch (error) {
      arrived.reject(error);
    }
    return arrived.promise;
  }

  /** Drops unsent signals about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#delivery.dropMedia();
  }

  receive(frame) {
    const { data, changed } = this.#delivery.receive(frame, this.#now);
    if (changed) this.#handlers.onNewPeer(frame.stream);
    for (const each of data) if (typeof each === "object" && each !== null) this.#deliver(each);
    this.#pump();
  }

  acknowledged(frame) {
    this.#delivery.acknowledged(frame, this.#now);
    this.#pump();
  }

  /** The call is over: signals that are still awaited fail with `error`. */
  close(error) {
    this.pause();
    this.#end = error;
    this.#delivery.fail(error.code);
  }

  get #now() {
    return this.#link.environment.now();
  }

  #error(code) {
    return new KeeplineError(code, WHY[code], { room: this.#roomId });
  }

  /** Throws a KeeplineError if the server would refuse the signal. */
  #push(data, { settle, media }) {
    const number = { stream: "x".repeat(64), n: Number.MAX_SAFE_INTEGER }; // for the size only
    encodeFrame({ type: "signal", room: this.#roomId, ...number, data }, this.#link.limits());
    this.#delivery.push(JSON.stringify(data), settle, { media });
    this.#pump();
  }

  #deliver(data) {
    if ("app" in data) this.#handlers.onApp(data.app);
    else if (data.to === undefined || this.#delivery.isOurs(data.to)) this.#handlers.onMedia(data);
  }

  /** Writes due frames, one per turn, and schedules the next run. */
  #pump() {
    if (this.#turn) return;
    if (!this.#delivery.isDue(this.#now)) return this.#schedule();
    const turn = (this.#turn = {});
    this.#link.whenFree(() => {
      if (this.#turn !== turn) return;
      this.#turn = null;
      const text = this.#delivery.next(this.#now);
      if (text !== null) this.#link.write(text);
      this.#pump();
    });
  }

  #schedule() {
    const { setTimeout, clearTimeout } = this.#link.environment;
    clearTimeout(this.#timer);
    const wakeAt = this.#delivery.wakeAt();
    if (wakeAt !== null) this.#timer = setTimeout(() => this.#pump(), Math.max(0, wakeAt - this.#now));
  }
}

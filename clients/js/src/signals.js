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
 * What one call says to its peer: the I/O around {@link Delivery}. Signals between two SDKs are `{description}` and
 * `{candidate}` (with `to`, the peer's stream they are meant for, once it is known), `{app}` for the app, and the presence
 * notes of `Delivery`.
 */
export class Signals {
  #roomId;
  #link;
  #handlers;
  #delivery;
  #turn = null; // what has asked for a turn to write
  #timer = null;
  #end = null; // the error of what will never arrive

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
    this.#delivery = new Delivery(roomId, link.environment.newId(), new Outbox(), handlers.onOutdated);
  }

  get isFlowing() {
    return this.#delivery.flows;
  }

  /** Whether the peer is an SDK, which tells by its stream when it begins anew. */
  get peerIsKnown() {
    return this.#delivery.incoming.instance !== null;
  }

  /** Both are there. */
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

  /** The peer reads too slowly: what is sent waits for so long. */
  holdFor(ms) {
    this.#delivery.hold(this.#now + ms);
    this.#pump();
  }

  peerLeft() {
    this.#delivery.peerLeft();
  }

  /** The peer's side was taken back: perhaps by a device that was followed before. */
  hearRetired() {
    this.#delivery.incoming.hearRetired();
  }

  sendMedia(data) {
    const to = this.#delivery.incoming.stream;
    this.#push(to === null ? data : { ...data, to }, { media: true });
  }

  /** Resolves when the peer has the app's data. */
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

  /** Forgets what was said about an RTCPeerConnection that is gone. */
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

  /** It is over: whoever waits for a signal gets this error. */
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

  /** Throws a KeeplineError where the server would refuse it. */
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

  /** Writes what is due, one frame a turn, and comes back when more will be. */
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

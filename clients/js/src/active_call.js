import { Call } from "./call.js";
import { ChatLines } from "./chat_lines.js";
import { Deferred } from "./deferred.js";
import { KeeplineError } from "./errors.js";
import { encodeFrame } from "./frames.js";
import { KnownMessages } from "./known_messages.js";
import { Media } from "./media.js";
import { ReadyEvent } from "./ready_event.js";
import { Signals } from "./signals.js";

const TYPING_INTERVAL_MS = 1_000;
const SLOW_PEER_MS = 1_000;

/**
 * The internal part of a call. {@link Calls} moves it from connection to connection and passes it its frames. The app
 * has the {@link Call}, which emits the events.
 */
export class ActiveCall {
  #link;
  #signals;
  #held; // set while the server holds our side
  #lines;
  #isSeated = false;
  #messages = new KnownMessages();
  #typedAt = -Infinity;
  #ready = new Deferred();
  #departure = null;

  room = null;
  side = null;
  polite = null;
  peerState = "absent";
  endedReason = null;

  constructor(link, roomId) {
    this.#link = link;
    this.roomId = roomId;
    /** The app's object. */
    this.call = new Call(this);
    this.#held = new ReadyEvent(link.environment, roomId);
    this.#lines = new ChatLines(roomId, link, this.#held);
    this.#signals = new Signals(roomId, link, {
      onApp: (data) => this.#emit("data", data),
      onMedia: (data) => this.media.negotiator?.receive(data),
      onNewPeer: (stream) => this.#followPeer(stream),
      onOutdated: () => this.media.isAgreed && this.#renewMedia() && this.media.negotiator?.resume(),
    });
    this.media = new Media(link.environment, {
      signal: (data) => this.#signals.sendMedia(data),
      emit: (name, detail) => this.#emit(name, detail),
      suspect: link.suspect,
      iceServers: link.iceServers,
    });
  }

  get ready() {
    return this.#ready.promise;
  }

  // --- called by the app ---

  /** Applies the options of a `join`. */
  adopt({ media, peerConnection, iceServers } = {}) {
    if (iceServers) this.media.configure({ iceServers });
    if (media) this.media.setStream(media).catch((cause) => this.#reportMedia(cause));
    if (peerConnection && peerConnection !== this.media.peerConnection) this.usePeerConnection(peerConnection);
  }

  usePeerConnection(pc) {
    this.media.configure({ peerConnection: pc });
    if (this.#isSeated && this.#openMedia() && this.peerState === "joined") this.media.negotiator?.resume();
  }

  /** Makes a request about this room as soon as the server holds our side. */
  async ask(frame) {
    const wait = this.#held.wait();
    if (wait) await wait;
    return this.#link.request({ ...frame, room: this.roomId });
  }

  report(reason) {
    return this.#link.requestWhenConnected({ type: "report", room: this.roomId, reason });
  }

  typing() {
    const now = this.#link.environment.now();
    if (!this.#signals.isFlowing || now - this.#typedAt < TYPING_INTERVAL_MS) return;
    this.#typedAt = now;
    this.#link.whenFree(() => this.#link.write(encodeFrame({ type: "typing", room: this.roomId })));
  }

  send(data) {
    return this.#signals.send(data ?? null);
  }

  /** Has a message stored, and remembers it, so that it is not emitted when it appears in a snapshot. */
  async chat(text, key) {
    const message = await this.#lines.write(text, key);
    this.#messages.add(message);
    return message;
  }

  becomeVideo() {
    if (this.room) this.room = { ...this.room, chat_mode: "video" };
  }

  /** Leaves or ends the call. Media stops at once, and the room can be joined again. The promise may be ignored. */
  depart(type, reason, cause) {
    if (this.endedReason) return Promise.resolve();
    this.#departure ??= this.#carryOut(type, reason, cause);
    this.#departure.catch(() => {});
    return this.#departure;
  }

  // --- called by the connection ---

  /** The server holds our side: after the first join, or after a reconnect. */
  joined({ room, side, polite, peer }) {
    if (this.endedReason || this.#departure) return;
    const again = this.room !== null;
    const becameVideo = this.room?.chat_mode === "text" && room.chat_mode === "video";
    Object.assign(this, { room, side, polite, peerState: peer });
    this.#isSeated = true;
    if (!this.media.peerConnection && !this.#openMedia()) return;
    this.#ready.resolve(this.call);
    this.#emit("joined", { room, side, polite, peer, again });
    if (becameVideo) this.#emit("mode", { action: "accept" });
    for (const message of room.messages) this.#readMessage(message, again);
    this.#goOn();
  }

  /** The connection is lost or about to be replaced. */
  pause() {
    this.#isSeated = false;
    this.#held.clear();
    this.#signals.pause();
    this.media.negotiator?.pause();
  }

  /** The connection is not replaced after all. */
  goOn() {
    if (this.room === null || this.#isSeated) return;
    this.#isSeated = true;
    this.#goOn();
  }

  /** Processes a frame about this room. */
  receive({ type, room: _room, ...frame }) {
    switch (type) {
      case "signal":
        return this.#signals.receive(frame);
      case "ack":
        return this.#signals.acknowledged(frame);
      case "peer":
        return this.#receivePeer(frame);
      case "chat":
        return this.#readMessage(frame.message, true);
      case "mode":
        if (frame.action === "accept") this.becomeVideo();
        return this.#emit("mode", frame);
      case "ended":
        return this.finish(frame.reason);
      case "error":
        if (frame.code === "rate_limited") this.#signals.holdFor(frame.retry_after_ms ?? SLOW_PEER_MS);
        return this.#emit("error", KeeplineError.fromFrame({ ...frame, room: this.roomId }));
      case "typing":
      case "inactivity":
      case "ending":
        return this.#emit(type, frame);
    }
  }

  /** New TURN credentials. */
  refreshIce() {
    try {
      this.media.refreshIce();
    } catch (cause) {
      this.#reportMedia(cause);
    }
  }

  /** The call is over, at least on this side. */
  finish(reason, cause) {
    if (this.endedReason) return;
    this.endedReason = reason;
    this.pause();
    this.media.close();
    const error = cause ?? new KeeplineError("room_ended", `The call is over: ${reason}`, { room: this.roomId, reason });
    this.#ready.reject(error);
    this.#held.fail(error);
    this.#signals.close(error);
    this.#link.forget(this);
    this.#emit("ended", { reason });
  }

  #emit(name, detail) {
    this.call.emit(name, detail);
  }

  /** Opens media. If that fails, leaves the room and returns false. */
  #openMedia() {
    this.#signals.dropMedia();
    try {
      this.media.open(this.polite);
      return true;
    } catch (error) {
      this.#emit("error", error);
      this.depart("leave", error.code, error);
      return false;
    }
  }

  #renewMedia() {
    this.#signals.dropMedia();
    return this.media.renew();
  }

  #reportMedia(cause) {
    const message = `The browser refuses media: ${cause?.message ?? cause}`;
    this.#emit("error", new KeeplineError("media_failed", message, { room: this.roomId, cause }));
  }

  #goOn() {
    this.#held.set();
    this.#meetPeer();
  }

  #meetPeer() {
    if (!this.#isSeated || this.peerState !== "joined") {
      this.#signals.pause();
      return this.media.negotiator?.pause();
    }
    this.#signals.flow();
    this.media.negotiator?.resume();
  }

  #receivePeer(frame) {
    const newcomer = frame.state === "joined" && this.peerState === "left" && !this.#signals.peerIsKnown;
    if (newcomer) this.#renewMedia();
    if (frame.state === "reconnected") this.#signals.hearRetired();
    if (frame.state === "left") this.#signals.peerLeft();
    this.peerState = frame.state === "reconnected" ? "joined" : frame.state;
    this.#emit("peer", frame);
    this.#meetPeer();
  }

  /** The peer's page was reloaded: the other end of our RTCPeerConnection is gone. */
  #followPeer(stream) {
    this.#renewMedia();
    this.#emit("peerchanged", { stream });
    if (this.peerState === "joined") this.media.negotiator?.resume();
  }

  #readMessage(message, announce) {
    const isNew = this.#messages.add(message);
    if (isNew && announce) this.#emit("chat", { message, own: message.from === this.#link.user() });
  }

  async #carryOut(type, reason, cause) {
    this.pause();
    this.media.close();
    try {
      await this.#link.depart(this, type);
    } finally {
      this.finish(reason, cause);
    }
  }
}

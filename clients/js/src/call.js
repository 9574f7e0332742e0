import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { KeeplineError } from "./errors.js";
import { checkText, encodeFrame, MAX_REASON_LENGTH } from "./frames.js";
import { ReadyEvent } from "./ready_event.js";
import { KnownMessages } from "./known_messages.js";
import { Media } from "./media.js";
import { Signals } from "./signals.js";

const TYPING_INTERVAL_MS = 1_000;
const SLOW_PEER_MS = 1_000;

/**
 * A call: one room, held by one side, with its media. Made by {@link Keepline.join}; it lives until `ended`,
 * whatever happens to connections meanwhile.
 *
 * Events (`on(name, detail => …)` or `addEventListener` with `event.detail`):
 * `joined` {room, side, polite, peer, again}, `peer` {state, grace_ms?}, `peerchanged` {stream},
 * `peerconnection` {peerConnection}, `track` {track, streams, transceiver}, `connectionstate` {state},
 * `chat` {message, own}, `typing`, `data` (what the peer sent), `mode` {action}, `inactivity` {state, ends_in_ms?},
 * `ending` {ends_in_ms}, `ended` {reason}, `error` {@link KeeplineError}.
 */
export class Call extends Emitter {
  #link;
  #signals;
  #media;
  #held; // open while the server holds our side
  #isSeated = false;
  #messages = new KnownMessages();
  #typedAt = -Infinity;
  #ready = new Deferred();
  #departure = null;

  /** @internal */
  constructor(link, roomId, options) {
    super();
    this.#link = link;
    this.#held = new ReadyEvent(link.environment, roomId);
    this.#signals = new Signals(roomId, link, {
      onApp: (data) => this.emit("data", data),
      onMedia: (data) => this.#media.negotiator?.receive(data),
      onNewPeer: (stream) => this.#followPeer(stream),
      onOutdated: () => this.#media.isAgreed && this.#renewMedia() && this.#media.negotiator?.resume(),
    });
    this.#media = new Media(link.environment, {
      signal: (data) => this.#signals.sendMedia(data),
      emit: (name, detail) => this.emit(name, detail),
      suspect: link.suspect,
      iceServers: link.iceServers,
    });
    /** The room's id. */
    this.roomId = roomId;
    /** The room as the cluster last told it, or null before the first `joined`. */
    this.room = null;
    /** 1 (initiator) or 2, or null before the first `joined`. */
    this.side = null;
    /** Whether we give way when two offers meet; null before the first `joined`. */
    this.polite = null;
    /** `absent`, `joined`, `reconnecting`, `away` or `left`. */
    this.peerState = "absent";
    /** Why the call is over, or null. */
    this.endedReason = null;
    this._adopt(options);
  }

  /** Resolves when the room is held for the first time; rejects when the call ends before that. */
  get ready() {
    return this.#ready.promise;
  }

  /** The RTCPeerConnection in use, or null before the first `joined`. */
  get peerConnection() {
    return this.#media.peerConnection;
  }

  /** Adds a track; kept for the RTCPeerConnection that a reloaded peer will need. */
  addTrack(track, ...streams) {
    this.#media.addTrack(track, streams);
  }

  /** Sends the tracks of `stream` (null: none) in place of those sent until now. */
  async setMedia(stream) {
    await this.#media.setStream(stream);
  }

  /** Goes on with another RTCPeerConnection of the app's own; meant for `peerchanged`. */
  usePeerConnection(pc) {
    this.#media.configure({ peerConnection: pc });
    if (this.#isSeated && this.#openMedia() && this.peerState === "joined") this.#media.negotiator?.resume();
  }

  /** Sends a chat message (1 to 500 characters); resolves with it once it is stored. */
  async chat(text) {
    checkText(text, this.#link.limits().chat_length, this.roomId);
    const { message } = await this.#ask({ type: "chat", text });
    this.#messages.add(message);
    return message;
  }

  /** Tells the peer that the user is typing; at most once a second, and only while both are connected. */
  typing() {
    const now = this.#link.environment.now();
    if (!this.#signals.isFlowing || now - this.#typedAt < TYPING_INTERVAL_MS) return;
    this.#typedAt = now;
    this.#link.whenFree(() => this.#link.write(encodeFrame({ type: "typing", room: this.roomId })));
  }

  /**
   * Sends any JSON value to the peer, who gets it as a `data` event, in order and at most once. The last 256 wait while
   * we or the peer are not connected.
   */
  send(data) {
    if (!this.endedReason && !this.#departure) this.#signals.send({ app: data ?? null });
  }

  /** Ends the call for both sides. Media stops at once. */
  hangUp() {
    return this.#depart("end", "hangup");
  }

  /** Steps out of the room without ending it. Media stops at once; join again to come back. */
  leave() {
    return this.#depart("leave", "left");
  }

  /** Asks the peer to turn a text call into a video call. */
  async requestVideo() {
    await this.#ask({ type: "mode", action: "request" });
  }

  /** Accepts the peer's request for video. */
  async acceptVideo() {
    await this.#ask({ type: "mode", action: "accept" });
    this.#becomeVideo();
  }

  /** Declines the peer's request for video. */
  async declineVideo() {
    await this.#ask({ type: "mode", action: "decline" });
  }

  /**
   * Reports the peer to the app's moderators (1 to 500 characters), also when the call has ended; resolves once the
   * report is stored. To repeat the same one does no harm.
   */
  async report(reason) {
    checkText(reason, MAX_REASON_LENGTH, this.roomId);
    await this.#link.report(this.roomId, reason);
  }

  /** @internal Takes what another `join` of the same room brings along. */
  _adopt({ media, peerConnection, iceServers } = {}) {
    if (iceServers) this.#media.configure({ iceServers });
    if (media) this.setMedia(media).catch((cause) => this.#reportMedia(cause));
    if (peerConnection && peerConnection !== this.peerConnection) this.usePeerConnection(peerConnection);
    return this;
  }

  /** @internal The room is held: first join, or back after a reconnect. */
  _joined({ room, side, polite, peer }) {
    if (this.endedReason || this.#departure) return;
    const again = this.room !== null;
    const becameVideo = this.room?.chat_mode === "text" && room.chat_mode === "video";
    Object.assign(this, { room, side, polite, peerState: peer });
    this.#isSeated = true;
    if (!this.peerConnection && !this.#openMedia()) return;
    this.#ready.resolve(this);
    this.emit("joined", { room, side, polite, peer, again });
    if (becameVideo) this.emit("mode", { action: "accept" });
    for (const message of room.messages) this.#readMessage(message, again);
    this.#goOn();
  }

  /** @internal The connection is gone, or is about to be left. */
  _pause() {
    this.#isSeated = false;
    this.#held.clear();
    this.#signals.pause();
    this.#media.negotiator?.pause();
  }

  /** @internal The connection that was to be left stays. */
  _goOn() {
    if (this.room === null || this.#isSeated) return;
    this.#isSeated = true;
    this.#goOn();
  }

  /** @internal A frame of the server about this room. */
  _receive({ type, room: _room, ...frame }) {
    switch (type) {
      case "signal":
        return this.#signals.receive(frame);
      case "peer":
        return this.#receivePeer(frame);
      case "chat":
        return this.#readMessage(frame.message, true);
      case "mode":
        if (frame.action === "accept") this.#becomeVideo();
        return this.emit("mode", frame);
      case "ended":
        return this._finish(frame.reason);
      case "error":
        if (frame.code === "rate_limited") this.#signals.holdFor(frame.retry_after_ms ?? SLOW_PEER_MS);
        return this.emit("error", KeeplineError.fromFrame({ ...frame, room: this.roomId }));
      case "typing":
      case "inactivity":
      case "ending":
        return this.emit(type, frame);
    }
  }

  /** @internal New TURN credentials. */
  _refreshIce() {
    try {
      this.#media.refreshIce();
    } catch (cause) {
      this.#reportMedia(cause);
    }
  }

  /** @internal The call is over, here at least. */
  _finish(reason, cause) {
    if (this.endedReason) return;
    this.endedReason = reason;
    this._pause();
    this.#media.close();
    const error = cause ?? new KeeplineError("room_ended", `The call is over: ${reason}`, { room: this.roomId, reason });
    this.#ready.reject(error);
    this.#held.fail(error);
    this.#link.forget(this);
    this.emit("ended", { reason });
  }

  /** Whether media could be opened; if not, the call gives its side back and is over. */
  #openMedia() {
    this.#signals.dropMedia();
    try {
      this.#media.open(this.polite);
      return true;
    } catch (error) {
      this.emit("error", error);
      this.#depart("leave", error.code, error);
      return false;
    }
  }

  #renewMedia() {
    this.#signals.dropMedia();
    return this.#media.renew();
  }

  #reportMedia(cause) {
    const message = `The browser refuses media: ${cause?.message ?? cause}`;
    this.emit("error", new KeeplineError("media_failed", message, { room: this.roomId, cause }));
  }

  #goOn() {
    this.#held.set();
    this.#meetPeer();
  }

  #meetPeer() {
    if (!this.#isSeated || this.peerState !== "joined") {
      this.#signals.pause();
      return this.#media.negotiator?.pause();
    }
    this.#signals.flow();
    this.#media.negotiator?.resume();
  }

  #receivePeer(frame) {
    const newcomer = frame.state === "joined" && this.peerState === "left" && !this.#signals.peerIsKnown;
    if (newcomer) this.#renewMedia();
    if (frame.state === "reconnected") this.#signals.hearRetired();
    this.peerState = frame.state === "reconnected" ? "joined" : frame.state;
    this.emit("peer", frame);
    this.#meetPeer();
  }

  /** The peer's page was loaded anew: what our RTCPeerConnection was connected to is gone. */
  #followPeer(stream) {
    this.#renewMedia();
    this.emit("peerchanged", { stream });
    if (this.peerState === "joined") this.#media.negotiator?.resume();
  }

  #readMessage(message, announce) {
    const isNew = this.#messages.add(message);
    if (isNew && announce) this.emit("chat", { message, own: message.from === this.#link.user() });
  }

  #becomeVideo() {
    if (this.room) this.room = { ...this.room, chat_mode: "video" };
  }

  async #ask(frame) {
    const wait = this.#held.wait();
    if (wait) await wait;
    return this.#link.request({ ...frame, room: this.roomId });
  }

  /** Media stop at once, and the room can be joined anew. The promise may be ignored. */
  #depart(type, reason, cause) {
    if (this.endedReason) return Promise.resolve();
    this.#departure ??= this.#carryOut(type, reason, cause);
    this.#departure.catch(() => {});
    return this.#departure;
  }

  async #carryOut(type, reason, cause) {
    this._pause();
    this.#media.close();
    try {
      await this.#link.depart(this, type);
    } finally {
      this._finish(reason, cause);
    }
  }
}

import { Deferred } from "./deferred.js";
import { Delivery } from "./delivery.js";
import { Emitter } from "./emitter.js";
import { KeeplineError } from "./errors.js";
import { encodeFrame } from "./frames.js";
import { Negotiator } from "./negotiator.js";

const MAX_QUEUED_SIGNALS = 256;
const MAX_WAITING_REQUESTS = 32;
const MAX_KNOWN_MESSAGES = 1_000; // As many as a room keeps.
const REQUEST_TIMEOUT_MS = 10_000;
const TYPING_INTERVAL_MS = 1_000;

/**
 * A call: one room, held by one side, with its media. Made by {@link Keepline.join}; it lives until `ended`,
 * whatever happens to connections meanwhile.
 *
 * Signals between two SDKs are `{description}` and `{candidate}` (with `to`, the peer's stream they are meant for,
 * once it is known), `{app}` for {@link Call.send}, and `{here}`, the presence note: it tells our stream to the
 * peer, and which stream of the peer we know. Whoever is not known correctly answers with a note of its own, so
 * after one exchange both know whom they talk to.
 *
 * Events (`on(name, detail => …)` or `addEventListener` with `event.detail`):
 * `joined` {room, side, polite, peer, again}, `peer` {state, grace_ms?}, `peerchanged` {stream},
 * `peerconnection` {peerConnection}, `track` {track, streams, transceiver}, `connectionstate` {state}, `chat` {message, own}, `typing`, `data` (what
 * the peer sent), `mode` {action}, `inactivity` {state, ends_in_ms?}, `ending` {ends_in_ms}, `ended` {reason},
 * `error` {@link KeeplineError}.
 */
export class Call extends Emitter {
  #link;
  #options;
  #delivery;
  #media = [];
  #pc = null;
  #negotiator = null;
  #pcListeners = null;
  #pcIsOurs = true;
  #outbox = [];
  #waiting = [];
  #messages = new Set();
  #typedAt = -Infinity;
  #seated = false;
  #departing = false;
  #ready;

  /** @internal */
  constructor(link, roomId, options) {
    super();
    this.#link = link;
    this.#options = options;
    this.#delivery = new Delivery(link.environment.newId());
    this.#ready = new Deferred();
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
    if (options.media) this.setMedia(options.media);
  }

  /** Resolves when the room is held for the first time; rejects when the call ends before that. */
  get ready() {
    return this.#ready.promise;
  }

  /** The RTCPeerConnection in use, or null before the first `joined`. */
  get peerConnection() {
    return this.#pc;
  }

  /** Adds a track; kept for the RTCPeerConnection that a reloaded peer will need. */
  addTrack(track, ...streams) {
    this.#media.push({ track, streams });
    this.#pc?.addTrack(track, ...streams);
  }

  /** Sends the tracks of `stream` (null: none) in place of those sent until now. */
  async setMedia(stream) {
    this.#media = (stream?.getTracks() ?? []).map((track) => ({ track, streams: [stream] }));
    if (!this.#pc) return;
    const senders = this.#pc.getSenders().filter((sender) => sender.track);
    const replacements = [];
    for (const { track } of this.#media) {
      const index = senders.findIndex((sender) => sender.track.kind === track.kind);
      if (index < 0) this.#pc.addTrack(track, stream);
      else replacements.push(senders.splice(index, 1)[0].replaceTrack(track));
    }
    for (const sender of senders) this.#pc.removeTrack(sender);
    await Promise.all(replacements);
  }

  /** Goes on with another RTCPeerConnection of the app's own; meant for `peerchanged`. */
  usePeerConnection(pc) {
    this.#options = { ...this.#options, peerConnection: pc };
    if (!this.#seated || this.#departing) return;
    this.#openMedia();
    if (this.peerState === "joined") this.#negotiator.resume();
  }

  /** Sends a chat message (1 to 500 characters); resolves with it once it is stored. */
  async chat(text) {
    const { message } = await this.#ask({ type: "chat", text });
    this.#knowMessage(message);
    return message;
  }

  /** Tells the peer that the user is typing; at most once a second, and only while connected. */
  typing() {
    const now = this.#link.environment.now();
    if (!this.#seated || now - this.#typedAt < TYPING_INTERVAL_MS) return;
    this.#typedAt = now;
    this.#link.write(encodeFrame({ type: "typing", room: this.roomId }));
  }

  /** Sends any JSON value to the peer, who gets it as a `data` event. At most once: a peer that is away misses it. */
  send(data) {
    this.#signal({ app: data });
  }

  /** Ends the call for both sides. Media stops at once. */
  async hangUp() {
    await this.#depart({ type: "end" }, "hangup");
  }

  /** Steps out of the room without ending it. Media stops at once; join again to come back. */
  async leave() {
    await this.#depart({ type: "leave" }, "left");
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
    await this.#link.report(this.roomId, reason);
  }

  /** @internal The room is held: first join, or back after a reconnect. */
  _joined({ room, side, polite, peer }) {
    if (this.endedReason) return;
    const again = this.room !== null;
    const becameVideo = this.room?.chat_mode === "text" && room.chat_mode === "video";
    Object.assign(this, { room, side, polite, peerState: peer });
    this.#seated = true;
    if (!this.#pc && !this.#departing) this.#openMedia();
    this.#ready.resolve(this);
    this.emit("joined", { room, side, polite, peer, again });
    if (becameVideo) this.emit("mode", { action: "accept" });
    for (const message of room.messages) this.#readMessage(message, again);
    for (const text of this.#outbox.splice(0)) this.#link.write(text);
    for (const waiter of this.#waiting.splice(0)) waiter.resolve();
    this.#meetPeer();
  }

  /** @internal The connection is gone; the room is held again after the next one. */
  _offline() {
    this.#seated = false;
    this.#negotiator?.pause();
  }

  /** @internal A frame of the server about this room. */
  _receive({ type, room: _room, ...frame }) {
    if (this.endedReason) return;
    switch (type) {
      case "signal":
        return this.#receiveSignal(frame);
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
        return this.emit("error", KeeplineError.fromFrame({ ...frame, room: this.roomId }));
      case "typing":
      case "inactivity":
      case "ending":
        return this.emit(type, frame);
    }
  }

  /** @internal New TURN credentials. */
  _refreshIce(iceServers) {
    if (!this.#pc || !this.#pcIsOurs || this.#options.iceServers) return;
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers });
  }

  /** @internal The call is over, here at least. */
  _finish(reason, cause) {
    if (this.endedReason) return;
    this.endedReason = reason;
    this.#seated = false;
    this.#closeMedia();
    this.#outbox.length = 0;
    const error = cause ?? new KeeplineError("room_ended", `The call is over: ${reason}`, { room: this.roomId });
    this.#ready.reject(error);
    for (const waiter of this.#waiting.splice(0)) waiter.reject(error);
    this.#link.forget(this);
    this.emit("ended", { reason });
  }

  #openMedia() {
    this.#closeMedia();
    const { peerConnection, iceServers = this.#link.iceServers() } = this.#options;
    const { RTCPeerConnection } = this.#link.environment;
    if (!peerConnection && !RTCPeerConnection) return;
    const pc = peerConnection ?? new RTCPeerConnection({ iceServers });
    this.#pc = pc;
    this.#pcIsOurs = pc !== peerConnection;
    this.#listenTo(pc);
    this.#negotiator = new Negotiator(pc, {
      polite: this.polite,
      send: (data) => this.#signal(this.#addressed(data)),
      report: (cause) => this.#reportNegotiation(cause),
      timers: this.#link.environment,
      beginAnew: () => this.#beginMediaAnew(),
    });
    const sent = new Set(pc.getSenders().map((sender) => sender.track));
    for (const { track, streams } of this.#media) if (!sent.has(track)) pc.addTrack(track, ...streams);
    this.emit("peerconnection", { peerConnection: pc });
  }

  #listenTo(pc) {
    this.#pcListeners = new AbortController();
    const { signal } = this.#pcListeners;
    const onTrack = ({ track, streams, transceiver }) => this.emit("track", { track, streams, transceiver });
    pc.addEventListener("track", onTrack, { signal });
    const onState = () => this.emit("connectionstate", { state: pc.connectionState });
    pc.addEventListener("connectionstatechange", onState, { signal });
  }

  #renewMedia() {
    if (this.#pc && this.#pcIsOurs) this.#openMedia();
  }

  #beginMediaAnew() {
    if (!this.#pcIsOurs) return null;
    this.#openMedia();
    return this.#negotiator;
  }

  #closeMedia() {
    if (!this.#pc) return;
    this.#negotiator.close();
    this.#pcListeners.abort();
    if (this.#pcIsOurs) this.#pc.close();
    this.#negotiator = null;
    this.#pc = null;
  }

  #reportNegotiation(cause) {
    const message = `Negotiating media failed: ${cause?.message ?? cause}`;
    this.emit("error", new KeeplineError("negotiation_failed", message, { room: this.roomId, cause }));
  }

  #addressed(data) {
    const to = this.#delivery.peerStream;
    return to === null ? data : { ...data, to };
  }

  #signal(data) {
    if (this.endedReason) return;
    const text = encodeFrame({ type: "signal", room: this.roomId, ...this.#delivery.number(data) });
    if (this.#seated) return this.#link.write(text);
    this.#outbox.push(text);
    if (this.#outbox.length > MAX_QUEUED_SIGNALS) this.#outbox.shift();
  }

  #meetPeer() {
    if (this.peerState !== "joined") return this.#negotiator?.pause();
    this.#signal({ here: this.#delivery.peerStream });
    this.#negotiator?.resume();
  }

  #receivePeer(frame) {
    // Only a peer that numbers its signals tells by itself that it is a new instance.
    const newcomer = frame.state === "joined" && this.peerState === "left" && this.#delivery.peerStream === null;
    if (newcomer) this.#renewMedia();
    this.peerState = frame.state === "reconnected" ? "joined" : frame.state;
    this.emit("peer", frame);
    this.#meetPeer();
  }

  #receiveSignal({ stream, n, data }) {
    const verdict = this.#delivery.accept({ stream, n });
    if (verdict === "drop" || typeof data !== "object" || data === null) return;
    if (verdict === "changed") this.#followPeer(stream);
    if ("app" in data) this.emit("data", data.app);
    else if ("here" in data) this.#receiveNote(data.here);
    else if (data.to === undefined || data.to === this.#delivery.stream) this.#negotiator?.receive(data);
  }

  #receiveNote(knownStream) {
    if (knownStream !== this.#delivery.stream) this.#signal({ here: this.#delivery.peerStream });
  }

  /** The peer's page was loaded anew: what our RTCPeerConnection was connected to is gone. */
  #followPeer(stream) {
    this.#renewMedia();
    this.emit("peerchanged", { stream });
    if (this.peerState === "joined") this.#negotiator?.resume();
  }

  #readMessage(message, announce) {
    if (this.#messages.has(message.seq)) return;
    this.#knowMessage(message);
    if (announce) this.emit("chat", { message, own: message.from === this.#link.user() });
  }

  #knowMessage({ seq }) {
    this.#messages.add(seq);
    const [oldest] = this.#messages;
    if (this.#messages.size > MAX_KNOWN_MESSAGES) this.#messages.delete(oldest);
  }

  #becomeVideo() {
    if (this.room) this.room = { ...this.room, chat_mode: "video" };
  }

  async #ask(frame) {
    if (!this.#seated) await this.#untilSeated();
    return this.#link.request({ ...frame, room: this.roomId });
  }

  #untilSeated() {
    if (this.endedReason) throw new KeeplineError("room_ended", "The call is over", { room: this.roomId });
    if (this.#waiting.length >= MAX_WAITING_REQUESTS) {
      throw new KeeplineError("queue_full", "Too many requests wait for the connection", { room: this.roomId });
    }
    const { setTimeout, clearTimeout } = this.#link.environment;
    const waiter = new Deferred();
    this.#waiting.push(waiter);
    const timer = setTimeout(() => {
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
      waiter.reject(new KeeplineError("timeout", "Not connected in time", { room: this.roomId }));
    }, REQUEST_TIMEOUT_MS);
    return waiter.promise.finally(() => clearTimeout(timer));
  }

  async #depart(frame, reason) {
    this.#departing = true;
    this.#closeMedia();
    try {
      await this.#ask(frame);
    } catch (error) {
      // The room may be over already; then we have what we wanted.
      if (error.code !== "room_ended" && error.code !== "room_not_found") throw error;
    } finally {
      this._finish(reason);
    }
  }
}

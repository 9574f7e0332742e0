// Keepline browser SDK, MIT licence. Made from src/ by `make bundle`: change the sources, not this file.

// src/deferred.js
var Deferred = class {
  constructor() {
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.promise.catch(() => {
    });
  }
};

// src/delivery.js
var MAX_OUT_OF_ORDER = 256;
var MAX_RETIRED_STREAMS = 8;
var Delivery = class {
  #sent = 0;
  #inOrder = 0;
  #outOfOrder = /* @__PURE__ */ new Set();
  #retired = [];
  constructor(stream) {
    this.stream = stream;
    this.peerStream = null;
  }
  /** The next signal of our stream. */
  number(data) {
    return { stream: this.stream, n: ++this.#sent, data };
  }
  /**
   * What to do with a signal: `deliver` it, `drop` it as seen before, or deliver it knowing that the peer's
   * instance `changed`. Clients without an SDK send neither `stream` nor `n`; what they send is delivered.
   */
  accept({ stream, n }) {
    if (stream === void 0) return "deliver";
    if (this.#retired.includes(stream)) return "drop";
    const changed = this.peerStream !== null && stream !== this.peerStream;
    if (stream !== this.peerStream) this.#follow(stream);
    if (n !== void 0 && this.#seen(n)) return "drop";
    return changed ? "changed" : "deliver";
  }
  #follow(stream) {
    if (this.peerStream !== null) this.#retired.push(this.peerStream);
    if (this.#retired.length > MAX_RETIRED_STREAMS) this.#retired.shift();
    this.peerStream = stream;
    this.#inOrder = 0;
    this.#outOfOrder.clear();
  }
  #seen(n) {
    if (n <= this.#inOrder || this.#outOfOrder.has(n)) return true;
    this.#outOfOrder.add(n);
    if (this.#outOfOrder.size > MAX_OUT_OF_ORDER) this.#inOrder = Math.min(...this.#outOfOrder) - 1;
    while (this.#outOfOrder.delete(this.#inOrder + 1)) this.#inOrder += 1;
    return false;
  }
};

// src/emitter.js
var Emitter = class extends EventTarget {
  /**
   * Calls `listener` with the detail of each event called `name`; returns a function that ends it.
   * @param {string} name
   * @param {(detail: any) => void} listener
   */
  on(name, listener) {
    const handler = (event) => listener(event.detail);
    this.addEventListener(name, handler);
    return () => this.removeEventListener(name, handler);
  }
  /** @internal */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
};

// src/errors.js
var ABNORMAL_CLOSURE = 1006;
var KeeplineError = class _KeeplineError extends Error {
  /**
   * @param {string} code a code of the protocol (`room_ended`, `rate_limited`, …) or of the SDK (`timeout`,
   *   `connection_lost`, `closed`, `queue_full`, `too_large`, `token_failed`, `negotiation_failed`, …)
   * @param {string} message for a developer's eyes
   * @param {{retryAfterMs?: number, room?: string, cause?: unknown}} [details]
   */
  constructor(code, message, { retryAfterMs, room, cause } = {}) {
    super(message, cause === void 0 ? void 0 : { cause });
    this.name = "KeeplineError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    this.room = room;
  }
  /** @internal */
  static fromFrame({ code, message, retry_after_ms, room }) {
    return new _KeeplineError(String(code), String(message ?? code), { retryAfterMs: retry_after_ms, room });
  }
};
var CLOSES = /* @__PURE__ */ new Map([
  [4400, { reason: "bad_frame", next: "stop" }],
  [4401, { reason: "unauthorized", next: "fresh_token" }],
  [4403, { reason: "origin_refused", next: "stop" }],
  [4408, { reason: "hello_timeout", next: "retry" }],
  [4409, { reason: "replaced", next: "stop" }],
  [4413, { reason: "too_large", next: "stop" }],
  [4429, { reason: "rate_limited", next: "retry_later" }],
  [4503, { reason: "draining", next: "retry" }],
  [4508, { reason: "too_slow", next: "retry" }]
]);
var PASSING_ERRORS = /* @__PURE__ */ new Set(["unavailable", "rate_limited", "timeout", "queue_full"]);
var ACCIDENT = { reason: "connection_lost", next: "retry" };

// src/frames.js
var MAX_FRAME_BYTES = 64 * 1024;
function parseFrame(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}
function encodeFrame(frame) {
  const text = JSON.stringify(frame);
  const mayExceed = text.length * 3 > MAX_FRAME_BYTES;
  if (mayExceed && new TextEncoder().encode(text).length > MAX_FRAME_BYTES) {
    throw new KeeplineError("too_large", `A frame is limited to ${MAX_FRAME_BYTES} bytes`, { room: frame.room });
  }
  return text;
}

// src/negotiator.js
var MAX_EARLY_CANDIDATES = 64;
var ROLLBACK_PATIENCE_MS = 500;
var Negotiator = class {
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
    if (description.type === "answer" && pc.signalingState === "stable") return;
    await pc.setRemoteDescription(description);
    for (const candidate of this.#early.splice(0)) await this.#addCandidate(candidate);
    if (description.type !== "offer" || this.#closed) return;
    await pc.setLocalDescription();
    this.#offerDue = false;
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
      if (!this.#ignoringOffer) throw cause;
    }
  }
  #belongs({ usernameFragment }) {
    const remote = this.#pc.remoteDescription;
    if (!remote) return false;
    return !usernameFragment || remote.sdp.split(/\r?\n/).includes(`a=ice-ufrag:${usernameFragment}`);
  }
};

// src/call.js
var MAX_QUEUED_SIGNALS = 256;
var MAX_WAITING_REQUESTS = 32;
var MAX_KNOWN_MESSAGES = 1e3;
var REQUEST_TIMEOUT_MS = 1e4;
var TYPING_INTERVAL_MS = 1e3;
var Call = class extends Emitter {
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
  #messages = /* @__PURE__ */ new Set();
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
    this.roomId = roomId;
    this.room = null;
    this.side = null;
    this.polite = null;
    this.peerState = "absent";
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
      beginAnew: () => this.#beginMediaAnew()
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
    else if (data.to === void 0 || data.to === this.#delivery.stream) this.#negotiator?.receive(data);
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
      if (error.code !== "room_ended" && error.code !== "room_not_found") throw error;
    } finally {
      this._finish(reason);
    }
  }
};

// src/backoff.js
var Backoff = class {
  #attempt = 0;
  constructor({ baseMs = 250, capMs = 8e3 } = {}, random = Math.random) {
    this.baseMs = baseMs;
    this.capMs = capMs;
    this.random = random;
  }
  next() {
    const ceiling = Math.min(this.capMs, this.baseMs * 2 ** this.#attempt++);
    return this.random() * ceiling;
  }
  reset() {
    this.#attempt = 0;
  }
};

// src/environment.js
function browserEnvironment() {
  const { WebSocket, RTCPeerConnection, window, document } = globalThis;
  return {
    WebSocket,
    RTCPeerConnection,
    window,
    document,
    random: Math.random,
    now: () => performance.now(),
    newId: randomId,
    setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer)
  };
}
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// src/client.js
var SUBPROTOCOL = "keepline.v1";
var MAX_BUFFERED_BYTES = 1024 * 1024;
var MAX_PENDING_REQUESTS = 64;
var CONNECT_TIMEOUT_MS = 1e4;
var REQUEST_TIMEOUT_MS2 = 1e4;
var PROBE_TIMEOUT_MS = 5e3;
var MOVE_TIMEOUT_MS = 5e3;
var FAREWELL_MS = 1e3;
var STABLE_AFTER_MS = 5e3;
var RATE_LIMIT_PAUSE_MS = 1e3;
var Keepline = class extends Emitter {
  #environment;
  #urls;
  #urlIndex = 0;
  #token;
  #roomHint;
  #backoff;
  #socket = null;
  #resume;
  #iceServers = [];
  #calls = /* @__PURE__ */ new Map();
  #requests = /* @__PURE__ */ new Map();
  #lastRequestId = 0;
  #attempt = 0;
  #attemptTimer;
  #retryTimer = null;
  #goodbyeTimer = null;
  #next = null;
  // the socket that is to take over after a goodbye
  #last = null;
  // the socket that it took over from
  #connectedAt = null;
  #heardAt = -Infinity;
  #comeBackAt = null;
  #refusals = 0;
  #first = null;
  #wakeUps = null;
  /**
   * @param {object} options
   * @param {string | string[]} options.url WebSocket addresses of the cluster, most wanted first
   * @param {string | (() => string | Promise<string>)} options.token JWT of the user; a function is asked before
   *   every attempt, so it can hand out fresh ones
   * @param {string} [options.room] the room that will be joined first: a hint for the load balancer
   * @param {{baseMs?: number, capMs?: number}} [options.backoff]
   * @param {object} [environment] replaces parts of the browser: for tests and other runtimes
   * @throws {TypeError} when an address is not a `ws:` or `wss:` URL
   */
  constructor({ url, token, room, backoff }, environment = {}) {
    super();
    this.#environment = { ...browserEnvironment(), ...environment };
    this.#urls = [url].flat().map(parseSocketUrl);
    if (this.#urls.length === 0) throw new TypeError("At least one url is needed");
    this.#token = token;
    this.#roomHint = room;
    this.#backoff = new Backoff(backoff, this.#environment.random);
    this.state = "closed";
    this.node = null;
    this.user = null;
  }
  /** Connects and stays connected; resolves with the first `welcome`, rejects when there is no hope of one. */
  connect() {
    if (this.state !== "closed") return this.#first.promise;
    this.#first = new Deferred();
    this.#backoff.reset();
    this.#refusals = 0;
    this.#listenForWakeUps();
    this.#setState("connecting");
    this.#open();
    return this.#first.promise;
  }
  /** Closes the connection for good; calls end here, while their rooms go on until the grace period is over. */
  close() {
    if (this.state !== "closed") this.#shut(new KeeplineError("closed", "Closed by the app"));
  }
  /**
   * Holds a room, now and after every reconnect, until the call has `ended`. Connects when that was not done yet.
   * @param {string} roomId
   * @param {{media?: MediaStream, peerConnection?: RTCPeerConnection, iceServers?: RTCIceServer[]}} [options]
   * @returns {Call} at once; `call.ready` tells when the room is held
   */
  join(roomId, options = {}) {
    const known = this.#calls.get(roomId);
    if (known) return known;
    const call = new Call(this.#link(), roomId, options);
    this.#calls.set(roomId, call);
    if (this.state === "closed") this.connect();
    else if (this.state === "connected") this.#hold(call);
    return call;
  }
  /**
   * Reports the other member of a room to the app's moderators, whether the room is held, has been or never was.
   * Waits for the connection; resolves once the report is stored. To repeat the same one does no harm.
   */
  async report(roomId, reason) {
    if (this.state !== "connected") await this.#untilConnected();
    await this.#request({ type: "report", room: roomId, reason });
  }
  #link() {
    return {
      report: (roomId, reason) => this.report(roomId, reason),
      environment: this.#environment,
      request: (frame) => this.#request(frame),
      write: (text) => this.#write(text),
      iceServers: () => this.#iceServers,
      user: () => this.user,
      forget: (call) => this.#calls.delete(call.roomId)
    };
  }
  #setState(state, reason) {
    if (this.state === state) return;
    this.state = state;
    this.emit("state", { state, reason });
  }
  #untilConnected() {
    if (this.state === "closed") throw new KeeplineError("closed", "Not connected");
    const { setTimeout, clearTimeout } = this.#environment;
    const waiter = new Deferred();
    const stopListening = this.on("state", ({ state, reason }) => {
      if (state === "connected") waiter.resolve();
      if (state === "closed") waiter.reject(new KeeplineError(reason, "The client was closed"));
    });
    const timer = setTimeout(() => waiter.reject(new KeeplineError("timeout", "Not connected in time")), REQUEST_TIMEOUT_MS2);
    return waiter.promise.finally(() => {
      clearTimeout(timer);
      stopListening();
    });
  }
  async #open() {
    const attempt = ++this.#attempt;
    const { setTimeout, WebSocket } = this.#environment;
    this.#retryTimer = null;
    this.#comeBackAt = null;
    this.#attemptTimer = setTimeout(() => this.#lose(ABNORMAL_CLOSURE), CONNECT_TIMEOUT_MS);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (attempt !== this.#attempt) return;
      this.#socket = new WebSocket(this.#address(), [SUBPROTOCOL]);
      this.#serve(this.#socket, token);
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      this.emit("error", new KeeplineError("connect_failed", `Could not connect: ${cause?.message}`, { cause }));
      this.#lose(ABNORMAL_CLOSURE);
    }
  }
  #address() {
    const address = new URL(this.#urls[this.#urlIndex % this.#urls.length]);
    const room = this.#calls.keys().next().value ?? this.#roomHint;
    if (room) address.searchParams.set("room", room);
    return address.href;
  }
  #serve(socket, token) {
    socket.onopen = () => this.#greet(token);
    this.#listen(socket);
  }
  #listen(socket) {
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code }) => this.#ended(code);
  }
  async #greet(token) {
    const attempt = this.#attempt;
    try {
      const hello = { type: "hello", token };
      if (this.#resume !== void 0) hello.resume = this.#resume;
      this.#welcome(await this.#request(hello));
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.emit("error", error);
      if (error.retryAfterMs) this.#comeBackAt = this.#environment.now() + error.retryAfterMs;
      this.#lose(error.code === "unauthorized" ? 4401 : ABNORMAL_CLOSURE);
    }
  }
  #welcome(welcome) {
    const { clearTimeout, now } = this.#environment;
    const calls = [...this.#calls.values()];
    clearTimeout(this.#attemptTimer);
    this.#connectedAt = now();
    this.#refusals = 0;
    this.#resume = welcome.resume;
    this.node = welcome.node;
    this.user = welcome.user;
    this.#refreshIce(welcome.ice_servers);
    this.#setState("connected");
    this.emit("welcome", welcome);
    this.#first.resolve(welcome);
    const held = new Map(welcome.resumed ? welcome.rooms.map((entry) => [entry.room.room_id, entry]) : []);
    for (const call of calls) {
      if (held.has(call.roomId)) call._joined(held.get(call.roomId));
      else this.#hold(call);
    }
  }
  #refreshIce(iceServers = []) {
    this.#iceServers = iceServers;
    for (const call of this.#calls.values()) call._refreshIce(iceServers);
  }
  async #hold(call, backoff = new Backoff({}, this.#environment.random)) {
    const attempt = this.#attempt;
    const current = () => attempt === this.#attempt && this.#calls.get(call.roomId) === call;
    try {
      const joined = await this.#request({ type: "join", room: call.roomId });
      if (current()) call._joined(joined);
    } catch (error) {
      if (!current()) return;
      if (!PASSING_ERRORS.has(error.code)) return call._finish(error.code, error);
      const again = () => current() && this.#hold(call, backoff);
      this.#environment.setTimeout(again, (error.retryAfterMs ?? 0) + backoff.next());
    }
  }
  #request(frame) {
    if (this.#requests.size >= MAX_PENDING_REQUESTS) {
      return Promise.reject(new KeeplineError("queue_full", "Too many requests are pending"));
    }
    const { setTimeout, clearTimeout } = this.#environment;
    const id = String(++this.#lastRequestId);
    const answer = new Deferred();
    const timer = setTimeout(() => {
      answer.reject(new KeeplineError("timeout", `No answer to ${frame.type}`, { room: frame.room }));
    }, REQUEST_TIMEOUT_MS2);
    this.#requests.set(id, answer);
    try {
      const written = this.#write(encodeFrame({ ...frame, id }));
      if (!written) answer.reject(new KeeplineError("connection_lost", "Not connected"));
    } catch (error) {
      answer.reject(error);
    }
    return answer.promise.finally(() => {
      clearTimeout(timer);
      this.#requests.delete(id);
    });
  }
  #write(text) {
    const { WebSocket } = this.#environment;
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) this.#lose(ABNORMAL_CLOSURE);
    return true;
  }
  #receive(text) {
    this.#heardAt = this.#environment.now();
    const frame = parseFrame(text);
    if (!frame) return;
    const pending = this.#requests.get(frame.id);
    if (pending && frame.type === "error") return pending.reject(KeeplineError.fromFrame(frame));
    if (pending) return pending.resolve(frame);
    if (frame.type === "goodbye") return this.#heedGoodbye(frame);
    if (frame.type === "ice") {
      this.#refreshIce(frame.ice_servers);
      return this.emit("ice", { ice_servers: frame.ice_servers });
    }
    const call = this.#calls.get(frame.room);
    if (call) return call._receive(frame);
    if (frame.type === "error") this.emit("error", KeeplineError.fromFrame(frame));
  }
  #heedGoodbye({ reconnect_after_ms: waitMs = 0 }) {
    if (this.#goodbyeTimer !== null) return;
    const { now, setTimeout } = this.#environment;
    this.#comeBackAt = now() + waitMs;
    this.#goodbyeTimer = setTimeout(() => this.#move(), waitMs);
  }
  /** Opens the next connection while this one still works, so that nothing is missed in between. */
  async #move() {
    const attempt = this.#attempt;
    const { setTimeout, WebSocket } = this.#environment;
    const fail = () => attempt === this.#attempt && this.#lose(4503);
    this.#goodbyeTimer = setTimeout(fail, MOVE_TIMEOUT_MS);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (attempt !== this.#attempt) return;
      this.#urlIndex += 1;
      const next = new WebSocket(this.#address(), [SUBPROTOCOL]);
      const hello = { type: "hello", id: String(++this.#lastRequestId), token, resume: this.#resume };
      const early = [];
      next.onopen = () => {
        next.send(encodeFrame(hello));
        for (const call of this.#calls.values()) call._offline();
      };
      next.onclose = fail;
      next.onmessage = ({ data }) => {
        const frame = parseFrame(data);
        if (frame?.id !== hello.id) early.push(data);
        else if (frame.type !== "welcome") fail();
        else this.#takeOver(next, frame, early);
      };
      this.#next = next;
    } catch {
      fail();
    }
  }
  #takeOver(socket, welcome, early) {
    const { clearTimeout, setTimeout } = this.#environment;
    clearTimeout(this.#goodbyeTimer);
    this.#goodbyeTimer = null;
    this.#attempt += 1;
    this.#comeBackAt = null;
    this.#next = null;
    this.#dismiss();
    const last = this.#last = this.#socket;
    last.onclose = null;
    setTimeout(() => last === this.#last && this.#dismiss(), FAREWELL_MS);
    this.#socket = socket;
    this.#listen(socket);
    this.#welcome(welcome);
    for (const data of early) this.#receive(data);
  }
  /** Lets go of the socket before this one, which may still bring what was on its way. */
  #dismiss() {
    if (this.#last) abandon(this.#last);
    this.#last = null;
  }
  /** A connection that we are about to leave may end before the next one is there. */
  #ended(code) {
    if (!this.#next) return this.#lose(code);
    for (const call of this.#calls.values()) call._offline();
  }
  /** This connection is over; what comes next depends on why. */
  #lose(closeCode) {
    const { reason, next } = CLOSES.get(closeCode) ?? ACCIDENT;
    const error = new KeeplineError(reason, `The connection was closed (${closeCode}: ${reason})`);
    this.#disconnect(error);
    const refused = next === "fresh_token" && (typeof this.#token !== "function" || ++this.#refusals > 1);
    if (next === "stop" || refused) return this.#shut(error);
    this.#urlIndex += 1;
    if (this.#wasStable()) this.#backoff.reset();
    this.#connectedAt = null;
    this.#setState(this.state === "connecting" ? "connecting" : "reconnecting", reason);
    this.#retryTimer = this.#environment.setTimeout(() => this.#open(), this.#retryDelay(next));
  }
  #disconnect(error) {
    const { clearTimeout } = this.#environment;
    this.#attempt += 1;
    clearTimeout(this.#attemptTimer);
    clearTimeout(this.#goodbyeTimer);
    clearTimeout(this.#retryTimer);
    this.#goodbyeTimer = this.#retryTimer = null;
    for (const socket of [this.#socket, this.#next]) if (socket) abandon(socket);
    this.#socket = this.#next = null;
    this.#dismiss();
    for (const answer of this.#requests.values()) answer.reject(error);
    for (const call of this.#calls.values()) call._offline();
  }
  #wasStable() {
    return this.#connectedAt !== null && this.#environment.now() - this.#connectedAt >= STABLE_AFTER_MS;
  }
  #retryDelay(next) {
    if (this.#comeBackAt !== null) return Math.max(0, this.#comeBackAt - this.#environment.now());
    return this.#backoff.next() + (next === "retry_later" ? RATE_LIMIT_PAUSE_MS : 0);
  }
  #shut(error) {
    const calls = [...this.#calls.values()];
    this.#disconnect(error);
    this.#wakeUps.abort();
    this.#connectedAt = null;
    this.#first.reject(error);
    this.#setState("closed", error.code);
    for (const call of calls) call._finish(error.code, error);
  }
  #listenForWakeUps() {
    this.#wakeUps = new AbortController();
    const { signal } = this.#wakeUps;
    const { window, document } = this.#environment;
    window?.addEventListener("online", () => this.#wakeUp() || this.#probe(), { signal });
    const onVisible = () => document.visibilityState === "visible" && this.#wakeUp();
    document?.addEventListener("visibilitychange", onVisible, { signal });
  }
  /** The network or the user is back: no reason to wait, unless the server named the time. */
  #wakeUp() {
    if (this.#retryTimer === null || this.#comeBackAt !== null) return false;
    this.#environment.clearTimeout(this.#retryTimer);
    this.#open();
    return true;
  }
  /**
   * After a change of network a connection may be dead without knowing it. Joining a room that we hold changes
   * nothing, and an answer that does not come tells.
   */
  #probe() {
    const [call] = this.#calls.values();
    if (this.state !== "connected" || !call) return;
    const { now, setTimeout } = this.#environment;
    const attempt = this.#attempt;
    const askedAt = now();
    const isSilent = () => attempt === this.#attempt && this.#heardAt < askedAt;
    this.#hold(call);
    setTimeout(() => isSilent() && this.#lose(ABNORMAL_CLOSURE), PROBE_TIMEOUT_MS);
  }
};
function abandon(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(1e3);
}
function parseSocketUrl(text) {
  const url = new URL(text);
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new TypeError(`Not a WebSocket address: ${text}`);
  return url.href;
}
export {
  Call,
  Keepline,
  KeeplineError
};

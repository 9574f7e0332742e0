// Keepline browser SDK, MIT licence. Made from src/ by `make bundle`: change the sources, not this file.

// src/emitter.js
var Emitter = class {
  #listeners = /* @__PURE__ */ new Map();
  /**
   * Calls `listener` with the detail of each event called `name`. Returns a function that removes it.
   * @param {string} name
   * @param {(detail: any) => void} listener
   */
  on(name, listener) {
    const handler = ({ detail }) => listener(detail);
    this.addEventListener(name, handler);
    return () => this.removeEventListener(name, handler);
  }
  /** Calls `listener` with `{type, detail}` for each event called `name`. */
  addEventListener(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, /* @__PURE__ */ new Set());
    this.#listeners.get(name).add(listener);
  }
  removeEventListener(name, listener) {
    this.#listeners.get(name)?.delete(listener);
  }
  /** @internal */
  emit(name, detail) {
    for (const listener of [...this.#listeners.get(name) ?? []]) callSafely(listener, { type: name, detail });
  }
};
function callSafely(listener, event) {
  try {
    listener(event);
  } catch (error) {
    (globalThis.reportError ?? throwLater)(error);
  }
}
function throwLater(error) {
  globalThis.setTimeout(() => {
    throw error;
  });
}
function listen(target, handlers) {
  const entries = Object.entries(handlers);
  for (const [name, handler] of entries) target.addEventListener(name, handler);
  return () => {
    for (const [name, handler] of entries) target.removeEventListener(name, handler);
  };
}

// src/errors.js
var RATE_LIMIT_PAUSE_MS = 1e3;
var KeeplineError = class _KeeplineError extends Error {
  /**
   * @param {string} code a code of the protocol (`room_ended`, `rate_limited`, …), the name of a close code
   *   (`replaced`, `origin_refused`, …) or one of the SDK (`connect_failed`, `token_failed`, `connection_lost`,
   *   `timeout`, `unknown`, `closed`, `queue_full`, `too_large`, `media_failed`, `negotiation_failed`)
   * @param {string} message for developers
   * @param {{retryAfterMs?: number, room?: string, reason?: string, status?: number, cause?: unknown}} [details]
   */
  constructor(code, message, { retryAfterMs, room, reason, status, cause } = {}) {
    super(message, cause === void 0 ? void 0 : { cause });
    this.name = "KeeplineError";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    this.room = room;
    this.reason = reason;
    this.status = status;
  }
  /** @internal */
  static fromFrame({ code, message, retry_after_ms, room, reason }) {
    return new _KeeplineError(String(code), String(message ?? code), { retryAfterMs: retry_after_ms, room, reason });
  }
  /** @internal */
  static fromClose(code, sentence) {
    const name = CLOSES.get(code) ?? "connection_lost";
    const retryAfterMs = name === "rate_limited" ? RATE_LIMIT_PAUSE_MS : void 0;
    return new _KeeplineError(name, `The connection was closed (${code}: ${sentence || name})`, { retryAfterMs });
  }
};
var CLOSES = /* @__PURE__ */ new Map([
  [4400, "bad_frame"],
  [4401, "unauthorized"],
  [4403, "origin_refused"],
  [4408, "hello_timeout"],
  [4409, "replaced"],
  [4413, "too_large"],
  [4429, "rate_limited"],
  [4503, "draining"],
  [4508, "too_slow"]
]);
var FINAL = /* @__PURE__ */ new Set(["bad_frame", "bad_request", "origin_refused", "replaced", "too_large"]);
var PASSING = /* @__PURE__ */ new Set(["unavailable", "rate_limited", "timeout", "queue_full", "connection_lost"]);
function nextStep({ code }) {
  if (FINAL.has(code)) return "stop";
  return code === "unauthorized" ? "fresh_token" : "retry";
}
function isPassing({ code }) {
  return PASSING.has(code);
}

// src/frames.js
var DEFAULT_LIMITS = {
  frames_per_second: 50,
  frames_burst: 200,
  frame_bytes: 64 * 1024,
  chat_length: 500
};
var MAX_REASON_LENGTH = 500;
function parseFrame(text) {
  try {
    const frame = JSON.parse(text);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}
function encodeFrame(frame, { frame_bytes: maxBytes } = DEFAULT_LIMITS) {
  const text = JSON.stringify(frame);
  if (HALF_CHARACTER.test(text)) {
    throw new KeeplineError("bad_request", `A ${frame.type} cannot hold half a surrogate pair`, { room: frame.room });
  }
  if (utf8Length(text, maxBytes) > maxBytes) {
    throw new KeeplineError("too_large", `A frame is limited to ${maxBytes} bytes`, { room: frame.room });
  }
  return text;
}
function checkText(text, maxLength, room) {
  const refuse = (why) => {
    throw new KeeplineError("bad_request", `The text ${why}`, { room });
  };
  if (typeof text !== "string") refuse("is not a string");
  const length = [...text].length;
  if (length === 0 || length > maxLength) refuse(`has ${length} characters; 1 to ${maxLength} are allowed`);
  if (text.includes("\0")) refuse("contains U+0000");
}
var HALF_CHARACTER = /(^|[^\\])(\\\\)*\\ud[89a-f]/;
function utf8Length(text, enough) {
  if (text.length * 3 <= enough) return text.length;
  let bytes = text.length;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit > 127) bytes += isSurrogate(unit) || unit <= 2047 ? 1 : 2;
  }
  return bytes;
}
function isSurrogate(unit) {
  return unit >= 55296 && unit <= 57343;
}

// src/call.js
var Call = class extends Emitter {
  #active;
  /** @internal */
  constructor(active) {
    super();
    this.#active = active;
  }
  /** The room's id. */
  get roomId() {
    return this.#active.roomId;
  }
  /** The last snapshot of the room, or null before the first `joined`. */
  get room() {
    return this.#active.room;
  }
  /** 1 (initiator) or 2, or null before the first `joined`. */
  get side() {
    return this.#active.side;
  }
  /** Whether this side yields when offers collide; null before the first `joined`. */
  get polite() {
    return this.#active.polite;
  }
  /** `absent`, `joined`, `reconnecting`, `away` or `left`. */
  get peerState() {
    return this.#active.peerState;
  }
  /** Why the call ended, or null. */
  get endedReason() {
    return this.#active.endedReason;
  }
  /** Resolves when the room is joined for the first time; rejects if the call ends first. */
  get ready() {
    return this.#active.ready;
  }
  /** The RTCPeerConnection in use, or null before the first `joined`. */
  get peerConnection() {
    return this.#active.media.peerConnection;
  }
  /** Adds a track. It is added to later RTCPeerConnections too, which a reloaded peer needs. */
  addTrack(track, ...streams) {
    this.#active.media.addTrack(track, streams);
  }
  /** Replaces the tracks that are sent by those of `stream` (null: none). */
  async setMedia(stream) {
    await this.#active.media.setStream(stream);
  }
  /** Continues with another RTCPeerConnection of the app, for example on `peerchanged`. */
  usePeerConnection(pc) {
    this.#active.usePeerConnection(pc);
  }
  /**
   * Sends a chat message (1 to 500 characters) and resolves with it once it is stored. It is stored exactly once, even
   * if that takes several connections and nodes, and messages are stored in the order in which they were sent. Rejects
   * if the message is not stored and never will be. If the client is closed (`closed`, `replaced`, …), the outcome is
   * unknown. Retries for as long as the cluster is unreachable. An app that passes its own `key` can send the message
   * again later to find out.
   */
  chat(text, { key } = {}) {
    return this.#active.chat(text, key);
  }
  /** Tells the peer that the user is typing: at most once a second, and only while both sides are connected. */
  typing() {
    this.#active.typing();
  }
  /**
   * Sends any JSON value to the peer, which gets it as a `data` event, exactly once and in order, even across
   * reconnects. The promise may be ignored. It resolves when the peer has the value, and rejects if it never will:
   * `room_ended`, `closed`, `peer_gone` (its page was closed or reloaded), `too_large`, or `queue_full` if 256 are
   * already waiting. A peer without an SDK, or with an older one, gets it at most once; the promise resolves when it is
   * sent.
   */
  send(data) {
    return this.#active.send(data);
  }
  /** Ends the call for both sides. Media stops at once. */
  hangUp() {
    return this.#active.depart("end", "hangup");
  }
  /** Leaves the room without ending it. Media stops at once. Join again to return. */
  leave() {
    return this.#active.depart("leave", "left");
  }
  /** Asks the peer to turn a text call into a video call. */
  async requestVideo() {
    await this.#active.ask({ type: "mode", action: "request" });
  }
  /** Accepts the peer's request for video. */
  async acceptVideo() {
    await this.#active.ask({ type: "mode", action: "accept" });
    this.#active.becomeVideo();
  }
  /** Declines the peer's request for video. */
  async declineVideo() {
    await this.#active.ask({ type: "mode", action: "decline" });
  }
  /**
   * Reports the peer to the app's moderators (1 to 500 characters), even after the end of the call. Resolves once the
   * report is stored. Repeating the same report is harmless.
   */
  async report(reason) {
    checkText(reason, MAX_REASON_LENGTH, this.roomId);
    await this.#active.report(reason);
  }
};

// src/backoff.js
var STABLE_AFTER_MS = 5e3;
var MAX_SHORT_CONNECTIONS = 3;
var Backoff = class {
  #attempt = 0;
  constructor({ baseMs = 250, capMs = 1e4 } = {}, random = Math.random) {
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
var ReconnectPlan = class {
  #backoff;
  #welcomedAt = null;
  #shortConnections = 0;
  #goodbyeAt = null;
  #failedAt = -Infinity;
  #named = false;
  constructor(backoff) {
    this.#backoff = backoff;
  }
  /** The server said when to reconnect. */
  goodbye(at) {
    this.#goodbyeAt = at;
  }
  welcomed(now) {
    this.#welcomedAt = now;
    this.#goodbyeAt = null;
  }
  /** How long to wait after a connection or an attempt ended at `now`. */
  delay(now, retryAfterMs) {
    if (this.#welcomedAt !== null) this.#judge(now - this.#welcomedAt >= STABLE_AFTER_MS);
    else this.#failedAt = now;
    this.#welcomedAt = null;
    const goodbyeAt = this.#goodbyeAt;
    this.#goodbyeAt = null;
    this.#named = goodbyeAt !== null || retryAfterMs !== void 0;
    if (goodbyeAt !== null && retryAfterMs === void 0) return Math.max(0, goodbyeAt - now);
    return (retryAfterMs ?? 0) + this.#backoff.next();
  }
  /** Whether the wait may be cut short when the network or the user is back. Not if the node keeps refusing. */
  mayHurry(now) {
    return !this.#named && now - this.#failedAt >= this.#backoff.baseMs;
  }
  #judge(stable) {
    this.#shortConnections = stable ? 0 : this.#shortConnections + 1;
    if (this.#shortConnections <= MAX_SHORT_CONNECTIONS) this.#backoff.reset();
  }
};

// src/chat_lines.js
var MAX_WAITING = 256;
var ChatLines = class {
  #room;
  #link;
  #held;
  #last = Promise.resolve();
  #waiting = 0;
  /**
   * @param {string} room
   * @param {object} link
   * @param {ReadyEvent} held set while the server holds our side
   */
  constructor(room, link, held) {
    this.#room = room;
    this.#link = link;
    this.#held = held;
  }
  /** Resolves with the message once it is stored. */
  async write(text, key) {
    const { chat_length: maxLength, chat_key: maxKey } = this.#link.limits();
    checkText(text, maxLength, this.#room);
    if (!maxKey) return (await this.#request({ type: "chat", text })).message;
    if (key !== void 0) checkText(key, maxKey, this.#room);
    if (this.#waiting >= MAX_WAITING) throw this.#error("queue_full", "Too many lines of chat are waiting");
    this.#waiting += 1;
    const written = this.#last.then(() => this.#write({ type: "chat", text, key: key ?? this.#newKey() }));
    this.#last = written.catch(() => {
    });
    return written.finally(() => this.#waiting -= 1);
  }
  #newKey() {
    return this.#link.environment.newId();
  }
  #error(code, message, cause) {
    return new KeeplineError(code, message, { room: this.#room, cause });
  }
  /** Sends the message until it is answered or the call ends; then asks once more whether it was stored. */
  async #write(frame) {
    if (this.#held.error) throw this.#held.error;
    try {
      return await this.#ask(() => this.#request(frame));
    } catch (ended) {
      if (ended !== this.#held.error || ended.code === "closed") throw ended;
      const request = () => this.#link.requestWhenConnected({ ...frame, room: this.#room });
      return this.#ask(request).catch((error) => {
        throw error.code === "room_ended" ? ended : this.#unknown("The call is over", error);
      });
    }
  }
  async #ask(request) {
    const { setTimeout, random } = this.#link.environment;
    const backoff = new Backoff({}, random);
    for (; ; ) {
      try {
        const { message } = await request();
        return message;
      } catch (error) {
        if (error === this.#held.error || !isPassing(error)) throw error;
        const ms = error.code === "connection_lost" ? 0 : (error.retryAfterMs ?? 0) + backoff.next();
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    }
  }
  #unknown(why, cause) {
    return this.#error("unknown", `${why}: it cannot be known whether the line is stored`, cause);
  }
  async #request(frame) {
    const wait = this.#held.wait();
    if (wait) await wait;
    if (frame.key !== void 0 && !this.#link.limits().chat_key) throw this.#unknown("This node knows no keys");
    return this.#link.request({ ...frame, room: this.#room });
  }
};

// src/deferred.js
var Deferred = class {
  isSettled = false;
  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => this.#settle(resolve, value);
      this.reject = (error) => this.#settle(reject, error);
    });
    this.promise.catch(() => {
    });
  }
  #settle(how, value) {
    this.isSettled = true;
    how(value);
  }
};

// src/known_messages.js
var MAX_KNOWN = 1e3;
var KnownMessages = class {
  #seqs = /* @__PURE__ */ new Set();
  /** Remembers a message. Returns whether it is new. */
  add({ seq }) {
    if (this.#seqs.has(seq)) return false;
    this.#seqs.add(seq);
    const [oldest] = this.#seqs;
    if (this.#seqs.size > MAX_KNOWN) this.#seqs.delete(oldest);
    return true;
  }
};

// src/ice_recovery.js
var DISCONNECTED_MS = 2e3;
var CHECKING_MS = 15e3;
var POLITE_EXTRA_MS = 1e3;
var PATIENCE_MS = [5e3, 1e4, 15e3];
var UNHURT = /* @__PURE__ */ new Set(["connected", "completed", "closed"]);
var IceRecovery = class {
  #pc;
  #timers;
  #extraMs;
  #restart;
  #suspect;
  #stopListening;
  #timer = null;
  #restarts = 0;
  #isPaused = true;
  /**
   * @param {RTCPeerConnection} pc
   * @param {object} options
   * @param {boolean} options.polite
   * @param {{setTimeout: Function, clearTimeout: Function}} options.timers
   * @param {() => void} options.restart
   * @param {() => void} options.suspect the path is lost; the connection to the node may be, too
   */
  constructor(pc, { polite, timers, restart, suspect }) {
    this.#pc = pc;
    this.#timers = timers;
    this.#extraMs = polite ? POLITE_EXTRA_MS : 0;
    this.#restart = restart;
    this.#suspect = suspect;
    const look = () => this.#look();
    this.#stopListening = listen(pc, { iceconnectionstatechange: look, connectionstatechange: look });
  }
  /** The peer is unreachable for offers. */
  pause() {
    this.#isPaused = true;
    this.#cancel();
  }
  /** The peer is reachable (again). */
  resume() {
    this.#isPaused = false;
  }
  /** Restarts ICE if it is not connected by now, even if it is only slow: signals may have been lost. */
  heal() {
    if (this.#pc.remoteDescription && !this.#isHealthy) this.#recover();
  }
  close() {
    this.pause();
    this.#stopListening();
  }
  get #isHealthy() {
    const { iceConnectionState, connectionState } = this.#pc;
    return UNHURT.has(iceConnectionState) && connectionState !== "failed" && connectionState !== "disconnected";
  }
  #look() {
    if (this.#isHealthy) {
      this.#restarts = 0;
      return this.#cancel();
    }
    const states = [this.#pc.iceConnectionState, this.#pc.connectionState];
    const isBroken = states.includes("failed") || states.includes("disconnected");
    if (isBroken) this.#suspect();
    if (this.#restarts > 0 || !isBroken && !states.includes("checking")) return;
    const patience = states.includes("failed") ? 0 : isBroken ? DISCONNECTED_MS : CHECKING_MS;
    this.#schedule(patience + this.#extraMs);
  }
  #schedule(ms) {
    this.#cancel();
    if (this.#isPaused) return;
    if (ms === 0) this.#recover();
    else this.#timer = this.#timers.setTimeout(() => this.#recover(), ms);
  }
  #recover() {
    if (this.#isHealthy) return;
    const patience = PATIENCE_MS[Math.min(this.#restarts, PATIENCE_MS.length - 1)];
    this.#restarts += 1;
    this.#schedule(patience);
    this.#restart();
  }
  #cancel() {
    this.#timers.clearTimeout(this.#timer);
    this.#timer = null;
  }
};

// src/negotiator.js
var MAX_EARLY_CANDIDATES = 64;
var ROLLBACK_PATIENCE_MS = 500;
var ANSWER_PATIENCE_MS = [5e3, 1e4, 2e4, 4e4];
var Negotiator = class {
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
  #unanswered = 0;
  // repetitions of the current offer
  #tooLarge = null;
  // the tracks of an offer that could not be sent
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
  constructor(pc, { polite, send, report, suspect = () => {
  }, timers, renew = () => null }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#send = send;
    this.#report = report;
    this.#suspect = suspect;
    this.#timers = timers;
    this.#renew = renew;
    this.#stopListening = listen(pc, {
      negotiationneeded: () => this.#negotiate(),
      icecandidate: ({ candidate }) => this.#offerCandidate(candidate)
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
    if (!this.#isUnanswered) this.#pc.restartIce();
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
    if (description.type === "answer" && pc.signalingState === "stable") return;
    await pc.setRemoteDescription(description);
    this.#timers.clearTimeout(this.#answerTimer);
    this.#unanswered = 0;
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

// src/media.js
var Media = class {
  #environment;
  #options = {};
  #tracks = /* @__PURE__ */ new Map();
  // track → the streams it belongs to
  #pc = null;
  #isOurs = true;
  #polite = null;
  #negotiator = null;
  #stopListening = null;
  #signal;
  #emit;
  #suspect;
  #iceServers;
  /**
   * @param {object} environment
   * @param {object} call
   * @param {(data: object) => void} call.signal sends negotiation data to the peer
   * @param {(name: string, detail: object) => void} call.emit
   * @param {() => void} call.suspect media has failed; the whole network may have
   * @param {() => RTCIceServer[]} call.iceServers the cluster's ICE servers
   */
  constructor(environment, { signal, emit, suspect, iceServers }) {
    this.#environment = environment;
    this.#signal = signal;
    this.#emit = emit;
    this.#suspect = suspect;
    this.#iceServers = iceServers;
  }
  get peerConnection() {
    return this.#pc;
  }
  /** Whether a description of the peer was accepted. */
  get isAgreed() {
    return Boolean(this.#pc?.remoteDescription);
  }
  get negotiator() {
    return this.#negotiator;
  }
  /** Sets the app's `iceServers` and `peerConnection`, which take effect with the next RTCPeerConnection. */
  configure(options) {
    this.#options = { ...this.#options, ...options };
  }
  /** Adds a track. No effect if it is sent already. */
  addTrack(track, streams) {
    this.#tracks.set(track, streams);
    this.#sendMissing();
  }
  /** Replaces the tracks that are sent by those of `stream` (null: none). */
  async setStream(stream) {
    this.#tracks = new Map((stream?.getTracks() ?? []).map((track) => [track, [stream]]));
    if (!this.#pc) return;
    const senders = this.#pc.getSenders().filter(({ track }) => track && !this.#tracks.has(track));
    const replacements = [];
    for (const track of this.#missing()) {
      const index = senders.findIndex((sender) => sender.track.kind === track.kind);
      if (index < 0) this.#pc.addTrack(track, stream);
      else replacements.push(senders.splice(index, 1)[0].replaceTrack(track));
    }
    for (const sender of senders) this.#pc.removeTrack(sender);
    await Promise.all(replacements);
    this.#negotiator?.reconsider();
  }
  /** Starts with a new RTCPeerConnection. Throws a KeeplineError if the browser cannot create or use it. */
  open(polite = this.#polite) {
    this.close();
    this.#polite = polite;
    const { peerConnection, iceServers = this.#iceServers() } = this.#options;
    const { RTCPeerConnection } = this.#environment;
    if (!peerConnection && !RTCPeerConnection) return;
    try {
      this.#use(peerConnection ?? new RTCPeerConnection({ iceServers }));
    } catch (cause) {
      this.close();
      throw new KeeplineError("media_failed", `The browser refuses this RTCPeerConnection: ${cause.message}`, { cause });
    }
    this.#emit("peerconnection", { peerConnection: this.#pc });
  }
  /** Replaces the RTCPeerConnection, unless it is the app's. Returns whether it was replaced. */
  renew() {
    const renewed = this.#pc !== null && this.#isOurs;
    if (renewed) this.open();
    return renewed;
  }
  close() {
    if (!this.#pc) return;
    this.#negotiator?.close();
    this.#stopListening();
    if (this.#isOurs) this.#pc.close();
    this.#negotiator = null;
    this.#pc = null;
  }
  /** New TURN credentials of the cluster. */
  refreshIce() {
    if (!this.#pc || !this.#isOurs || this.#options.iceServers) return;
    this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers: this.#iceServers() });
  }
  #use(pc) {
    this.#pc = pc;
    this.#isOurs = pc !== this.#options.peerConnection;
    this.#stopListening = listen(pc, {
      track: ({ track, streams, transceiver }) => this.#emit("track", { track, streams, transceiver }),
      connectionstatechange: () => this.#emit("connectionstate", { state: pc.connectionState })
    });
    this.#negotiator = new Negotiator(pc, {
      polite: this.#polite,
      send: this.#signal,
      report: (cause) => this.#report(cause),
      suspect: this.#suspect,
      timers: this.#environment,
      renew: () => this.renew() ? this.#negotiator : null
    });
    this.#sendMissing();
  }
  #missing() {
    const sent = new Set(this.#pc.getSenders().map(({ track }) => track));
    return [...this.#tracks.keys()].filter((track) => !sent.has(track));
  }
  #sendMissing() {
    if (!this.#pc) return;
    for (const track of this.#missing()) this.#pc.addTrack(track, ...this.#tracks.get(track));
    this.#negotiator?.reconsider();
  }
  #report(cause) {
    if (cause instanceof KeeplineError) return this.#emit("error", cause);
    const message = `Negotiating media failed: ${cause?.message ?? cause}`;
    this.#emit("error", new KeeplineError("negotiation_failed", message, { cause }));
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
    now: () => globalThis.performance?.now() ?? Date.now(),
    newId: randomId,
    setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer)
  };
}
function withTimeout(promise, ms, error, { setTimeout, clearTimeout }) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(error()), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
function randomId() {
  const bytes = new Uint8Array(12);
  if (globalThis.crypto?.getRandomValues) crypto.getRandomValues(bytes);
  else bytes.forEach((_, index) => bytes[index] = Math.random() * 256);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// src/ready_event.js
var MAX_WAITING2 = 32;
var PATIENCE_MS2 = 1e4;
var ReadyEvent = class {
  #environment;
  #room;
  #isSet = false;
  #error = null;
  #waiting = /* @__PURE__ */ new Set();
  constructor(environment, room) {
    this.#environment = environment;
    this.#room = room;
  }
  /** Why it has failed for good, or null. */
  get error() {
    return this.#error;
  }
  set() {
    this.#isSet = true;
    for (const waiter of this.#waiting) waiter.resolve();
  }
  clear() {
    this.#isSet = false;
    this.#error = null;
  }
  /** Rejects waiting and later requests with `error`. */
  fail(error) {
    this.#error = error;
    for (const waiter of this.#waiting) waiter.reject(error);
  }
  /** Null if it is ready; otherwise a promise that resolves when it is. */
  wait() {
    if (this.#error) return Promise.reject(this.#error);
    return this.#isSet ? null : this.#queue();
  }
  async #queue() {
    const details = { room: this.#room };
    if (this.#waiting.size >= MAX_WAITING2) {
      throw new KeeplineError("queue_full", "Too many requests wait for the connection", details);
    }
    const waiter = new Deferred();
    this.#waiting.add(waiter);
    const late = () => new KeeplineError("timeout", "Not connected in time", details);
    try {
      await withTimeout(waiter.promise, PATIENCE_MS2, late, this.#environment);
    } finally {
      this.#waiting.delete(waiter);
    }
  }
};

// src/incoming.js
var WINDOW = 128;
var ACK_DELAY_MS = 50;
var ACK_EVERY = 16;
var MAX_PAST = 8;
var Incoming = class {
  /** The peer's instance and current stream; null before anything has arrived. */
  instance = null;
  stream = null;
  duplicates = 0;
  #epoch = 0;
  #position = 0;
  #early = /* @__PURE__ */ new Map();
  #unacked = 0;
  #ackAt = 0;
  #past = /* @__PURE__ */ new Map();
  #retired = /* @__PURE__ */ new Set();
  /** Whether signals of `instance` are accepted. Not if another instance has replaced it. */
  hears(instance) {
    return !this.#retired.has(instance);
  }
  /** The peer is `instance` from now on. An instance that is known already continues where it was. */
  follow(instance) {
    if (this.instance !== null) this.#retire(this.instance);
    this.instance = instance;
    [this.#epoch, this.#position] = this.#past.get(instance) ?? [0, 0];
    this.#past.delete(instance);
    this.#early.clear();
    this.#unacked = 0;
  }
  #retire(instance) {
    this.#past.set(instance, [this.#epoch, this.#position]);
    this.#retired.add(instance);
    const [oldest] = this.#past.keys();
    if (this.#past.size <= MAX_PAST) return;
    this.#past.delete(oldest);
    this.#retired.delete(oldest);
  }
  /** The peer's side reconnected, possibly from an instance that was followed earlier. */
  hearRetired() {
    this.#retired.clear();
  }
  /** Processes a signal of a reliable stream. Returns the signals that can be delivered now, in order. */
  take(stream, epoch, n, data, now) {
    if (epoch < this.#epoch) return [];
    if (epoch > this.#epoch) this.#begin(epoch);
    this.stream = stream;
    if (!this.#unacked) this.#ackAt = now + ACK_DELAY_MS;
    this.#unacked += 1;
    const isKnown = n <= this.#position || this.#early.has(n);
    this.duplicates += isKnown;
    if (isKnown || n > this.#position + WINDOW) return [];
    this.#early.set(n, data);
    return [...this.#inOrder()];
  }
  /** Processes a signal of a plain stream, which is never retransmitted. Returns whether it is new. */
  takePlain(stream, n) {
    this.stream = stream;
    const isNew = n > this.#position;
    if (isNew) this.#position = n;
    else this.duplicates += 1;
    return isNew;
  }
  /** When an acknowledgement is due; null if none is. */
  get ackAt() {
    if (!this.#unacked || !this.#position) return null;
    return this.#unacked < ACK_EVERY ? this.#ackAt : 0;
  }
  /** The acknowledgement: the stream, and the number up to which everything has arrived. */
  takeAck() {
    this.#unacked = 0;
    return { stream: this.stream, n: this.#position };
  }
  #begin(epoch) {
    this.#epoch = epoch;
    this.#position = this.#unacked = 0;
    this.#early.clear();
  }
  *#inOrder() {
    while (this.#early.has(this.#position + 1)) {
      this.#position += 1;
      yield this.#early.get(this.#position);
      this.#early.delete(this.#position);
    }
  }
};

// src/outbox.js
var MAX_SIGNALS = 256;
var MAX_BYTES = 1024 * 1024;
var Outbox = class {
  #app = new Queue();
  #media = new Queue();
  get isEmpty() {
    return this.#app.length + this.#media.length === 0;
  }
  /** Whether the next signal belongs to the negotiation. */
  get hasMedia() {
    return this.#media.length > 0;
  }
  /** Appends a signal {text, settle}. Throws `queue_full`. */
  push(signal, media) {
    (media ? this.#media : this.#app).push(signal);
  }
  /** Removes and returns the next signal. */
  shift() {
    return this.#media.shift() ?? this.#app.shift();
  }
  /** Drops signals about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#media = new Queue();
  }
};
var Queue = class {
  #signals = [];
  #size = 0;
  get length() {
    return this.#signals.length;
  }
  push(signal) {
    if (this.length >= MAX_SIGNALS || this.#size + signal.text.length > MAX_BYTES) {
      throw new KeeplineError("queue_full", `${this.length} signals are waiting already`);
    }
    this.#size += signal.text.length;
    this.#signals.push(signal);
  }
  shift() {
    const signal = this.#signals.shift();
    this.#size -= signal?.text.length ?? 0;
    return signal;
  }
};

// src/retransmission_timeout.js
var FIRST_MS = 1e3;
var MIN_MS = 500;
var MAX_MS = 8e3;
var MAX_DOUBLINGS = 10;
var RetransmissionTimeout = class {
  #smoothed = null;
  #variation = 0;
  #doublings = 0;
  /** A signal was acknowledged after `ms`. Only for signals that were sent once: others are ambiguous. */
  measured(ms) {
    if (this.#smoothed === null) {
      this.#smoothed = ms;
      this.#variation = ms / 2;
    } else {
      this.#variation += (Math.abs(ms - this.#smoothed) - this.#variation) / 4;
      this.#smoothed += (ms - this.#smoothed) / 8;
    }
  }
  /** A signal was acknowledged, or the connection changed. */
  progressed() {
    this.#doublings = 0;
  }
  /** The timeout has passed without an acknowledgement. */
  passed() {
    this.#doublings = Math.min(this.#doublings + 1, MAX_DOUBLINGS);
  }
  /** The current timeout. */
  get ms() {
    const base = this.#smoothed === null ? FIRST_MS : Math.max(MIN_MS, this.#smoothed + 4 * this.#variation);
    return Math.min(MAX_MS, base * 2 ** this.#doublings);
  }
};

// src/delivery.js
var WINDOW_BYTES = 512 * 1024;
var WINDOW2 = 64;
var MEDIA_WINDOW = 112;
var PROBES_MS = [1e3, 2e3, 4e3];
var STREAM = /^r1\.([^.]+)\.(\d{1,9})$/;
var Delivery = class {
  kind = "unknown";
  incoming = new Incoming();
  resent = 0;
  frameBytes = 65536;
  #room;
  #instance;
  #onOutdated;
  #epoch = 1;
  #last = 0;
  #outbox;
  #unacked = [];
  // in the order of `n`, without gaps
  #unackedBytes = 0;
  #resend = [];
  #noteDue = false;
  #flows = false;
  #heard = true;
  // from the peer since it returned; until then new signals wait, for its page may have been reloaded
  #heldUntil = 0;
  #timeout = new RetransmissionTimeout();
  #timer = null;
  #repeatsTo = 0;
  // after a timeout: retransmit up to here, once the oldest signal has been acknowledged
  #probes = 0;
  /**
   * @param {string} room
   * @param {string} instance random
   * @param {Outbox} [outbox] the queue of unsent signals
   * @param {() => void} [onOutdated] the peer has since talked to another of our user's devices
   */
  constructor(room, instance, outbox = new Outbox(), onOutdated = () => {
  }) {
    this.#room = room;
    this.#instance = instance;
    this.#outbox = outbox;
    this.#onOutdated = onOutdated;
  }
  // --- what the app and the room say ---
  /** The name of our current stream to the peer. */
  get stream() {
    return `r1.${this.#instance}.${this.#epoch}`;
  }
  /** Whether both sides are present. */
  get flows() {
    return this.#flows;
  }
  /** Whether a stream belongs to this instance. */
  isOurs(stream) {
    return typeof stream === "string" && stream.startsWith(`r1.${this.#instance}.`);
  }
  /** Queues a signal, given as JSON. Calls `settle` with null once the peer has it. Throws `queue_full`. */
  push(text, settle = () => {
  }, { media = false } = {}) {
    this.#outbox.push({ text, settle }, media);
  }
  /** Drops unsent signals about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#outbox.dropMedia();
  }
  /** Both sides are present (again): retransmit what may have been lost in flight. */
  flow(now) {
    this.#flows = this.#noteDue = true;
    this.#probes = 0;
    this.#heldUntil = 0;
    this.#timeout.progressed();
    this.#timer = null;
    if (this.kind !== "reliable") return;
    this.#heard = false;
    this.#sendAgain(now);
  }
  /** One side is away: everything waits. */
  pause() {
    this.#flows = false;
  }
  /** The peer reads too slowly: send nothing before `until`. */
  hold(until) {
    this.#heldUntil = until;
  }
  /** The peer left deliberately: the next one is another instance. */
  peerLeft() {
    this.#startOver();
    this.kind = "unknown";
  }
  /** The call is over: no waiting signal will arrive. */
  fail(code) {
    this.#flows = false;
    this.#giveUp(code);
    while (!this.#outbox.isEmpty) this.#outbox.shift().settle(code);
  }
  // --- what comes in ---
  /** Processes a signal. Returns the data for the app, in order, and whether the peer is a new instance. */
  receive({ stream, n, data }, now) {
    if (stream === void 0 || n === void 0) {
      this.#isPlain();
      return { data: this.#withoutNotes([data]), changed: false };
    }
    const named = STREAM.exec(stream);
    const instance = named ? named[1] : stream;
    if (!this.incoming.hears(instance)) return { data: [], changed: false };
    let changed = false;
    if (instance !== this.incoming.instance) {
      changed = this.incoming.instance !== null;
      if (changed) this.#startOver();
      this.incoming.follow(instance);
      this.#noteDue ||= named !== null;
    }
    this.#heard = true;
    if (named) {
      this.#isReliable(now);
      return { data: this.#withoutNotes(this.incoming.take(stream, Number(named[2]), n, data, now)), changed };
    }
    this.#isPlain();
    return { data: this.#withoutNotes(this.incoming.takePlain(stream, n) ? [data] : []), changed };
  }
  /** The peer has received everything up to `n` of one of our streams. */
  acknowledged({ stream, n }, now) {
    if (stream !== this.stream || n > this.#last) return;
    this.#isReliable(now);
    this.#heard = true;
    if (!this.#unacked.length || n < this.#unacked[0].n) return;
    while (this.#unacked.length && this.#unacked[0].n <= n) {
      const sent = this.#unacked.shift();
      this.#unackedBytes -= sent.text.length;
      if (sent.times === 1) this.#timeout.measured(now - sent.sentAt);
      sent.settle(null);
    }
    this.#timeout.progressed();
    this.#timer = this.#unacked.length ? now + this.#timeout.ms : null;
    this.#resend = this.#unacked.map((sent) => sent.n).filter((each) => each <= this.#repeatsTo);
    this.#repeatsTo = 0;
  }
  // --- what goes out ---
  /** The text of the frame to write now; null if there is none before `wakeAt`. */
  next(now) {
    if (!this.#flows || now < this.#heldUntil) return null;
    this.#heldUntil = 0;
    const { ackAt } = this.incoming;
    if (ackAt !== null && ackAt <= now && this.kind === "reliable") {
      return JSON.stringify({ type: "ack", room: this.#room, ...this.incoming.takeAck() });
    }
    this.#lookAtTheTimer(now);
    const again = this.#nextAgain(now);
    if (again !== null) return again;
    if (this.#noteDue) {
      this.#noteDue = false;
      return this.#send({ text: this.#note, settle: () => {
      }, isNote: true }, now);
    }
    return this.#canSend ? this.#send(this.#outbox.shift(), now) : null;
  }
  /** Whether `next` has a frame now. */
  isDue(now) {
    if (!this.#flows || now < this.#heldUntil) return false;
    const wakeAt = this.wakeAt();
    if (wakeAt !== null && wakeAt <= now) return true;
    return this.#resend.length > 0 || this.#noteDue || this.#canSend;
  }
  /** When to call `next` even if nothing happens; null for never. */
  wakeAt() {
    if (!this.#flows) return null;
    const times = [this.#timer, this.kind === "reliable" ? this.incoming.ackAt : null].filter((at) => at !== null);
    if (!times.length) return this.#heldUntil || null;
    return Math.max(this.#heldUntil, Math.min(...times));
  }
  // --- inside ---
  get #note() {
    return JSON.stringify({ here: this.incoming.stream });
  }
  get #canSend() {
    if (this.#outbox.isEmpty || !this.#heard) return false;
    if (!this.#unacked.length) return true;
    const isMedia = this.#outbox.hasMedia;
    return this.#unacked.length < (isMedia ? MEDIA_WINDOW : WINDOW2) && (isMedia || this.#unackedBytes < WINDOW_BYTES);
  }
  #send(signal, now) {
    const sent = { ...signal, n: ++this.#last, sentAt: now, times: 1 };
    if (this.kind === "plain") {
      const text = this.#written(sent);
      sent.settle(null);
      return text;
    }
    this.#unacked.push(sent);
    this.#unackedBytes += sent.text.length;
    if (this.#timer === null) this.#setTimer(now);
    return this.#written(sent);
  }
  #setTimer(now) {
    if (this.kind === "reliable") this.#timer = now + this.#timeout.ms;
    else if (this.kind === "unknown") this.#timer = now + PROBES_MS[this.#probes];
  }
  #written(sent) {
    const frame = JSON.stringify({ type: "signal", room: this.#room, stream: this.stream, n: sent.n });
    const written = `${frame.slice(0, -1)},"data":${sent.text}}`;
    if (sent.isNote || utf8Length(written, this.frameBytes) <= this.frameBytes) return written;
    sent.settle("too_large");
    const text = this.#note;
    if (this.#unacked.includes(sent)) this.#unackedBytes += text.length - sent.text.length;
    Object.assign(sent, { text, settle: () => {
    }, isNote: true });
    return this.#written(sent);
  }
  #nextAgain(now) {
    while (this.#resend.length) {
      const n = this.#resend.shift();
      const sent = this.#unacked.length ? this.#unacked[n - this.#unacked[0].n] : void 0;
      if (!sent) continue;
      sent.times += 1;
      sent.sentAt = now;
      this.resent += 1;
      return this.#written(sent);
    }
    return null;
  }
  #sendAgain(now) {
    this.#resend = this.#unacked.map(({ n }) => n);
    this.#repeatsTo = 0;
    this.#timer = this.#unacked.length ? now + this.#timeout.ms : null;
  }
  #lookAtTheTimer(now) {
    if (this.#timer === null || now < this.#timer) return;
    if (this.kind === "reliable") {
      this.#timeout.passed();
      this.#timer = now + this.#timeout.ms;
      this.#resend = [this.#unacked[0].n];
      this.#repeatsTo = this.#last;
      return;
    }
    this.#probes += 1;
    if (this.#probes === PROBES_MS.length) return this.#isPlain();
    this.#setTimer(now);
    const note = this.#unacked.findLast(({ isNote }) => isNote);
    this.#resend = note ? [note.n] : [];
  }
  #isReliable(now) {
    if (this.kind === "reliable") return;
    if (this.kind === "plain") this.#startEpoch();
    this.kind = "reliable";
    this.#timer = null;
    if (this.#unacked.length) this.#setTimer(now);
  }
  #isPlain() {
    if (this.kind === "plain") return;
    this.kind = "plain";
    this.#giveUp(null);
  }
  /** The peer is a new instance: signals in flight to the old one are lost, and numbers start at 1 again. */
  #startOver() {
    this.#giveUp("peer_gone");
    this.#heard = true;
    if (this.kind !== "plain") this.#startEpoch();
  }
  #startEpoch() {
    if (!this.#last) return;
    this.#epoch += 1;
    this.#last = 0;
  }
  #giveUp(code) {
    const given = this.#unacked;
    this.#unacked = [];
    this.#unackedBytes = 0;
    this.#resend = [];
    this.#repeatsTo = 0;
    this.#timer = null;
    for (const { settle } of given) settle(code);
  }
  /** Processes presence notes, and returns the other signals. */
  #withoutNotes(signals) {
    return signals.filter((data) => {
      const isNote = typeof data === "object" && data !== null && !Array.isArray(data) && "here" in data;
      if (isNote) this.#noteRead(data.here);
      return !isNote;
    });
  }
  /** The peer names the stream it follows. If it is another instance, the peer has since talked to another device. */
  #noteRead(here) {
    if (this.isOurs(here)) return;
    if (here !== null) this.#onOutdated();
    this.#noteDue ||= here !== null || this.kind === "plain";
  }
};

// src/signals.js
var WHY = {
  peer_gone: "The peer's page is gone; whether it had the signal is not known",
  too_large: "The node takes less than the one before it"
};
var Signals = class {
  #roomId;
  #link;
  #handlers;
  #delivery;
  #turn = null;
  // the pending request for a turn to write
  #timer = null;
  #end = null;
  // the error for signals that will never arrive
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
    const settle = (code) => code === null ? arrived.resolve() : arrived.reject(this.#end ?? this.#error(code));
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
    const number = { stream: "x".repeat(64), n: Number.MAX_SAFE_INTEGER };
    encodeFrame({ type: "signal", room: this.#roomId, ...number, data }, this.#link.limits());
    this.#delivery.push(JSON.stringify(data), settle, { media });
    this.#pump();
  }
  #deliver(data) {
    if ("app" in data) this.#handlers.onApp(data.app);
    else if (data.to === void 0 || this.#delivery.isOurs(data.to)) this.#handlers.onMedia(data);
  }
  /** Writes due frames, one per turn, and schedules the next run. */
  #pump() {
    if (this.#turn) return;
    if (!this.#delivery.isDue(this.#now)) return this.#schedule();
    const turn = this.#turn = {};
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
};

// src/active_call.js
var TYPING_INTERVAL_MS = 1e3;
var SLOW_PEER_MS = 1e3;
var ActiveCall = class {
  #link;
  #signals;
  #held;
  // set while the server holds our side
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
    this.call = new Call(this);
    this.#held = new ReadyEvent(link.environment, roomId);
    this.#lines = new ChatLines(roomId, link, this.#held);
    this.#signals = new Signals(roomId, link, {
      onApp: (data) => this.#emit("data", data),
      onMedia: (data) => this.media.negotiator?.receive(data),
      onNewPeer: (stream) => this.#followPeer(stream),
      onOutdated: () => this.media.isAgreed && this.#renewMedia() && this.media.negotiator?.resume()
    });
    this.media = new Media(link.environment, {
      signal: (data) => this.#signals.sendMedia(data),
      emit: (name, detail) => this.#emit(name, detail),
      suspect: link.suspect,
      iceServers: link.iceServers
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
    this.#departure.catch(() => {
    });
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
};

// src/calls.js
var MAX_DEPARTURES = 64;
var DEPARTURE_MS = 1e4;
var Calls = class {
  #environment;
  #client;
  #calls = /* @__PURE__ */ new Map();
  #departures = /* @__PURE__ */ new Map();
  #connection = null;
  #limits = DEFAULT_LIMITS;
  #holding = /* @__PURE__ */ new Set();
  // rooms that the server holds for this connection
  #joining = /* @__PURE__ */ new Map();
  // room → the answer to a pending `join`
  /**
   * @param {object} environment
   * @param {{user: () => string, iceServers: () => object[], suspect: () => void, requestWhenConnected: Function}} client
   */
  constructor(environment, client) {
    this.#environment = environment;
    this.#client = client;
  }
  /** A room, as a hint for load balancers. */
  get anyRoom() {
    return this.#calls.keys().next().value;
  }
  /** A request without effect: a join of a room that is held already. Null if there is none. */
  probe() {
    const room = [...this.#calls.keys()].find((held) => this.#holding.has(held));
    return room === void 0 ? null : { type: "join", room };
  }
  /** The call in a room. If there is one already, applies `options` to it. */
  join(roomId, options) {
    const known = this.#calls.get(roomId);
    const active = known ?? new ActiveCall(this.#link(), roomId);
    active.adopt(options);
    if (!known) {
      this.#calls.set(roomId, active);
      this.#hold(active);
    }
    return active.call;
  }
  /** The connection was welcomed: all calls continue over it. */
  connected(connection, { resumed, rooms }) {
    this.#connection = connection;
    this.#limits = connection.limits;
    const held = new Map(resumed ? rooms.map((entry) => [entry.room.room_id, entry]) : []);
    this.#holding = new Set(held.keys());
    this.#joining.clear();
    for (const room of held.keys()) if (!this.#calls.has(room)) this.#expectDeparture(room);
    for (const departure of this.#departures.values()) this.#carryOut(departure);
    for (const call of [...this.#calls.values()]) {
      if (held.has(call.roomId) && !this.#departures.has(call.roomId)) call.joined(held.get(call.roomId));
      else this.#hold(call);
    }
  }
  /** The connection is lost or about to be replaced: requests and signals wait for the next one. */
  pause() {
    for (const call of this.#calls.values()) call.pause();
  }
  /** The connection is not replaced after all. */
  goOn() {
    for (const call of this.#calls.values()) if (this.#holding.has(call.roomId)) call.goOn();
  }
  disconnected() {
    this.#connection = null;
    this.#holding.clear();
    this.pause();
  }
  receive(frame) {
    if (frame.type === "ended") this.#holding.delete(frame.room);
    this.#calls.get(frame.room)?.receive(frame);
  }
  refreshIce() {
    for (const call of this.#calls.values()) call.refreshIce();
  }
  /** The client is closed for good. */
  close(error) {
    this.disconnected();
    for (const { done } of this.#departures.values()) done.reject(error);
    this.#departures.clear();
    for (const call of [...this.#calls.values()]) call.finish(error.code, error);
  }
  #link() {
    return {
      ...this.#client,
      environment: this.#environment,
      limits: () => this.#limits,
      request: (frame) => this.#request(frame),
      whenFree: (send) => this.#connection?.whenFree(send),
      write: (text) => this.#connection?.write(text),
      forget: (call) => this.#forget(call),
      depart: (call, type) => this.#depart(call, type)
    };
  }
  #request(frame, options) {
    if (this.#connection) return this.#connection.request(frame, options);
    return Promise.reject(new KeeplineError("connection_lost", "Not connected", { room: frame.room }));
  }
  #forget(call) {
    if (this.#calls.get(call.roomId) === call) this.#calls.delete(call.roomId);
  }
  async #hold(call, backoff = this.#backoff()) {
    const { roomId } = call;
    const connection = this.#connection;
    const isCurrent = () => this.#connection === connection && this.#calls.get(roomId) === call;
    if (!connection) return;
    let joined;
    try {
      while (this.#departures.has(roomId)) await this.#departures.get(roomId).done.promise;
      if (!isCurrent()) return;
      joined = await this.#join(roomId);
    } catch (error) {
      if (!isCurrent()) return;
      if (!isPassing(error)) return call.finish(error.reason ?? error.code, error);
      const again = () => isCurrent() && this.#hold(call, backoff);
      return this.#environment.setTimeout(again, (error.retryAfterMs ?? 0) + backoff.next());
    }
    if (isCurrent()) call.joined(joined);
  }
  /** Joins a room over this connection. */
  async #join(roomId) {
    const connection = this.#connection;
    const answer = this.#request({ type: "join", room: roomId }, { urgent: true });
    this.#joining.set(roomId, answer);
    try {
      const joined = await answer;
      if (this.#connection === connection) this.#holding.add(roomId);
      return joined;
    } finally {
      if (this.#joining.get(roomId) === answer) this.#joining.delete(roomId);
    }
  }
  /** The server holds a side that has no call here: the call was left while its join was pending. Leave it. */
  #expectDeparture(room) {
    if (!this.#departures.has(room)) this.#departures.set(room, { room, type: "leave", done: new Deferred() });
  }
  /** Forgets the call. Resolves once the server knows that it was left; rejects if that takes too long. */
  #depart(call, type) {
    const room = call.roomId;
    this.#forget(call);
    const earlier = this.#departures.get(room);
    const untold = this.#holding.has(room) || this.#joining.has(room) || call.side !== null;
    if (!earlier && !untold && type === "leave") return Promise.resolve();
    const departure = earlier ?? { room, type, done: new Deferred() };
    if (type === "end") departure.type = type;
    if (!earlier) this.#remember(departure);
    const late = () => new KeeplineError("timeout", "The server will be told when it can be reached", { room });
    return withTimeout(departure.done.promise, DEPARTURE_MS, late, this.#environment);
  }
  #remember(departure) {
    const [oldest] = this.#departures.keys();
    if (this.#departures.size >= MAX_DEPARTURES) this.#departures.delete(oldest);
    this.#departures.set(departure.room, departure);
    if (this.#connection) this.#carryOut(departure);
  }
  async #carryOut(departure, backoff = this.#backoff()) {
    const { room, done } = departure;
    const connection = this.#connection;
    const isCurrent = () => this.#connection === connection && this.#departures.get(room) === departure;
    try {
      if (this.#joining.has(room)) await this.#joining.get(room);
      else if (!this.#holding.has(room)) await this.#join(room);
      if (!isCurrent()) return;
      const { type } = departure;
      await this.#request({ type, room }, { urgent: true });
      if (isCurrent()) this.#holding.delete(room);
      if (departure.type !== type) return isCurrent() && this.#carryOut(departure, backoff);
    } catch (error) {
      if (!isCurrent()) return;
      if (isPassing(error)) {
        const again = () => isCurrent() && this.#carryOut(departure, backoff);
        return this.#environment.setTimeout(again, (error.retryAfterMs ?? 0) + backoff.next());
      }
    }
    if (this.#connection === connection) this.#holding.delete(room);
    this.#departures.delete(room);
    done.resolve();
  }
  #backoff() {
    return new Backoff({}, this.#environment.random);
  }
};

// src/heartbeat.js
var DEFAULT_PATIENCE_MS = 5e3;
var ASLEEP_MS = 2e3;
var Heartbeat = class {
  #environment;
  #ask;
  #onDeath;
  #patienceMs = DEFAULT_PATIENCE_MS;
  #heard = 0;
  #heardAt;
  #silenceTimer = null;
  #proofTimer = null;
  /**
   * @param {object} environment
   * @param {() => boolean} ask sends a request that the server answers; false if it has none
   * @param {() => void} onDeath
   */
  constructor(environment, ask, onDeath) {
    this.#environment = environment;
    this.#ask = ask;
    this.#onDeath = onDeath;
    this.#heardAt = environment.now();
  }
  heard() {
    this.#heard += 1;
    this.#heardAt = this.#environment.now();
  }
  /** Sends a request after every `silenceMs` of silence. */
  watch(silenceMs) {
    this.#patienceMs = silenceMs;
    const { now, setTimeout } = this.#environment;
    const rest = this.#heardAt + silenceMs - now();
    if (rest <= 0) this.suspect();
    this.#silenceTimer = setTimeout(() => this.watch(silenceMs), rest > 0 ? rest : silenceMs);
  }
  /** Sends a request now, unless one is pending. */
  suspect() {
    const { now, setTimeout } = this.#environment;
    const [heard, due] = [this.#heard, now() + this.#patienceMs];
    if (this.#proofTimer !== null || !this.#ask()) return;
    this.#proofTimer = setTimeout(() => this.#judge(heard, now() - due), this.#patienceMs);
  }
  stop() {
    this.#environment.clearTimeout(this.#silenceTimer);
    this.#environment.clearTimeout(this.#proofTimer);
  }
  #judge(heardBefore, lateMs) {
    this.#proofTimer = null;
    if (this.#heard !== heardBefore) return;
    if (lateMs > ASLEEP_MS) this.suspect();
    else this.#onDeath();
  }
};

// src/pacing.js
var SHARE_OF_BURST = 0.7;
var SHARE_OF_RATE = 0.9;
var Pacer = class {
  #perMs;
  #burst;
  #tokens;
  #at;
  constructor({ frames_per_second: rate, frames_burst: burst }, now) {
    this.#perMs = rate * SHARE_OF_RATE / 1e3;
    this.#burst = Math.max(1, burst * SHARE_OF_BURST);
    this.#tokens = this.#burst;
    this.#at = now;
  }
  /** Whether a frame may be sent at `now`. If so, counts it. */
  take(now) {
    if (this.wait(now) > 0) return false;
    this.#tokens -= 1;
    return true;
  }
  /** Counts a frame that is sent in any case. */
  charge(now) {
    this.#refill(now);
    this.#tokens -= 1;
  }
  /** The ms until a frame may be sent. */
  wait(now) {
    this.#refill(now);
    return Math.max(0, this.#at - now, Math.ceil((1 - this.#tokens) / this.#perMs));
  }
  /** The server accepts nothing for `ms`. */
  stopFor(ms, now) {
    this.#refill(now);
    this.#tokens = Math.min(this.#tokens, 0);
    this.#at = Math.max(this.#at, now + ms);
  }
  #refill(now) {
    if (now <= this.#at) return;
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }
};
var SendQueue = class {
  #environment;
  #pacer;
  #waiting = [];
  #timer = null;
  constructor(environment, limits) {
    this.#environment = environment;
    this.setLimits(limits);
  }
  get length() {
    return this.#waiting.length;
  }
  setLimits(limits) {
    this.#pacer = new Pacer(limits, this.#environment.now());
  }
  /** Calls `send` when a frame may be sent, possibly at once. */
  add(send) {
    if (this.#waiting.length === 0 && this.#pacer.take(this.#environment.now())) send();
    else if (this.#waiting.push(send) === 1) this.#schedule();
  }
  /** Sends an urgent frame. */
  sendNow(send) {
    this.#pacer.charge(this.#environment.now());
    send();
  }
  stopFor(ms) {
    this.#pacer.stopFor(ms, this.#environment.now());
  }
  /** Drops waiting frames. */
  close() {
    this.#waiting.length = 0;
    this.#environment.clearTimeout(this.#timer);
  }
  #schedule() {
    const { now, setTimeout } = this.#environment;
    this.#timer = setTimeout(() => this.#flush(), this.#pacer.wait(now()));
  }
  #flush() {
    while (this.#waiting.length > 0 && this.#pacer.take(this.#environment.now())) this.#waiting.shift()();
    if (this.#waiting.length > 0) this.#schedule();
  }
};

// src/requests.js
var Requests = class {
  #pending = /* @__PURE__ */ new Map();
  #lastId = 0;
  get size() {
    return this.#pending.size;
  }
  /** A new request: the `id` of its frame, the deferred `answer`, and `isOpen()`, true until it is settled. */
  open(type) {
    const id = String(++this.#lastId);
    const answer = new Deferred();
    this.#pending.set(id, { type, answer });
    const close = () => this.#pending.delete(id);
    answer.promise.then(close, close);
    return { id, answer, isOpen: () => this.#pending.has(id) };
  }
  /** Settles the request that `frame` answers, and returns the request's type; null if it answers none. */
  settle(frame) {
    const pending = this.#pending.get(frame.id);
    if (!pending) return null;
    this.#pending.delete(frame.id);
    if (frame.type === "error") pending.answer.reject(KeeplineError.fromFrame(frame));
    else pending.answer.resolve(frame);
    return pending.type;
  }
  fail(error) {
    for (const { answer } of this.#pending.values()) answer.reject(error);
    this.#pending.clear();
  }
};

// src/connection.js
var SUBPROTOCOL = "keepline.v1";
var MAX_BUFFERED_BYTES = 1024 * 1024;
var MAX_PENDING_REQUESTS = 64;
var MAX_EARLY_FRAMES = 1e3;
var WELCOME_MS = 1e4;
var ANSWER_MS = 1e4;
var RATE_LIMIT_PAUSE_MS2 = 1e3;
var MAX_RATE_LIMIT_PAUSE_MS = 1e4;
var Connection = class {
  #environment;
  #url;
  #socket;
  #probe;
  #opened = new Deferred();
  #requests = new Requests();
  #sendQueue;
  #heartbeat;
  #patience = null;
  #early = [];
  #onQueued = null;
  #onFrame = null;
  #onEnd = null;
  #failure = "";
  #ended = null;
  /** The server's limits. */
  limits = DEFAULT_LIMITS;
  /**
   * @param {object} environment
   * @param {string} url
   * @param {() => object | null} probe returns a request without effect, for nodes that do not support `ping`
   */
  constructor(environment, url, probe) {
    this.#environment = environment;
    this.#url = url;
    this.#probe = probe;
    this.#sendQueue = new SendQueue(environment, this.limits);
    this.#heartbeat = new Heartbeat(environment, () => this.#ask(), () => this.#end(lost("The server is silent")));
    this.#socket = new environment.WebSocket(url, [SUBPROTOCOL]);
    this.#socket.onopen = () => this.#opened.resolve();
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onerror = (event) => this.#failure = event?.message || event?.error?.message || "";
    this.#socket.onclose = ({ code, reason }) => this.#end(this.#closeError(code, reason));
    this.#waitForWelcome();
  }
  /**
   * Sends `hello` once the socket is open, and resolves with the `welcome`. Keeps waiting while the server says that
   * the hello is queued.
   * @param {object} fields
   * @param {{onSent?: () => void, onQueued?: (frame: object) => void}} handlers
   */
  async hello(fields, { onSent, onQueued } = {}) {
    this.#onQueued = onQueued;
    await this.#opened.promise;
    const { id, answer } = this.#requests.open("hello");
    const written = this.write(encodeFrame({ type: "hello", id, ...fields }));
    if (written) onSent?.();
    const welcome = await answer.promise;
    this.#environment.clearTimeout(this.#patience);
    this.limits = { ...DEFAULT_LIMITS, ...welcome.limits };
    this.#sendQueue.setLimits(this.limits);
    if (this.limits.ping_ms) this.#heartbeat.watch(this.limits.ping_ms);
    return welcome;
  }
  /** From now on passes frames that are not answers to `onFrame`, and the reason of the end to `onEnd`. */
  serve(onFrame, onEnd) {
    this.#onFrame = onFrame;
    this.#onEnd = onEnd;
    for (const frame of this.#early.splice(0)) onFrame(frame);
    if (this.#ended) onEnd(this.#ended);
  }
  /** Sends a request when the rate limit allows, an `urgent` one at once. Resolves with the answer. */
  request(frame, { urgent = false } = {}) {
    if (this.#ended) return Promise.reject(this.#ended);
    if (!urgent && this.#requests.size >= MAX_PENDING_REQUESTS) {
      return Promise.reject(new KeeplineError("queue_full", "Too many requests are pending", { room: frame.room }));
    }
    const { id, answer, isOpen } = this.#requests.open(frame.type);
    const { setTimeout, clearTimeout } = this.#environment;
    const timer = setTimeout(() => this.#giveUp(frame, answer), ANSWER_MS);
    const send = () => {
      if (isOpen() && !this.write(text)) answer.reject(lost("Not connected"));
    };
    let text;
    try {
      text = encodeFrame({ ...frame, id }, this.limits);
      if (urgent) this.#sendQueue.sendNow(send);
      else this.#sendQueue.add(send);
    } catch (error) {
      answer.reject(error);
    }
    return answer.promise.finally(() => clearTimeout(timer));
  }
  /** Calls `send` when a frame that needs no answer may be written, possibly at once. */
  whenFree(send) {
    if (!this.#ended) this.#sendQueue.add(send);
  }
  /** Writes the text of a frame; false if the socket is closed. */
  write(text) {
    if (this.#socket.readyState !== this.#environment.WebSocket.OPEN) return false;
    this.#socket.send(text);
    if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) this.#end(lost("The network takes too little"));
    return true;
  }
  /** The connection may be dead: test it now. */
  suspect() {
    if (this.#onFrame && !this.#ended) this.#heartbeat.suspect();
  }
  /** Closes the connection without calling `onEnd`; pending requests fail. */
  abandon(error = lost("The connection was left")) {
    this.#onEnd = null;
    this.#end(error);
  }
  #ask() {
    const frame = this.limits.ping_ms ? { type: "ping" } : this.#probe();
    if (frame) this.request(frame, { urgent: true }).catch(() => {
    });
    return Boolean(frame);
  }
  #giveUp({ type, room }, answer) {
    answer.reject(new KeeplineError("timeout", `No answer to ${type}`, { room }));
    this.suspect();
  }
  #waitForWelcome() {
    const { setTimeout, clearTimeout } = this.#environment;
    clearTimeout(this.#patience);
    const giveUp = () => this.#end(new KeeplineError("timeout", `No welcome from ${this.#url} in time`));
    this.#patience = setTimeout(giveUp, WELCOME_MS);
  }
  #receive(text) {
    this.#heartbeat.heard();
    const frame = parseFrame(text);
    if (!frame) return;
    if (frame.type === "queued") return this.#queued(frame);
    const answered = this.#requests.settle(frame);
    const isTooFast = frame.code === "rate_limited" && frame.room === void 0 && answered !== "report";
    if (isTooFast) this.#slowDown(frame);
    if (answered) return;
    if (this.#onFrame) this.#onFrame(frame);
    else this.#keepEarly(frame);
  }
  #slowDown({ retry_after_ms: ms = RATE_LIMIT_PAUSE_MS2 }) {
    this.#sendQueue.stopFor(Math.min(ms, MAX_RATE_LIMIT_PAUSE_MS));
  }
  #queued(frame) {
    if (this.#onFrame) return;
    this.#waitForWelcome();
    this.#onQueued?.(frame);
  }
  /** Keeps frames that arrive before the welcome: a resumed session holds its rooms already. */
  #keepEarly(frame) {
    if (this.#early.push(frame) > MAX_EARLY_FRAMES) this.#end(lost("Too many frames before the welcome"));
  }
  #closeError(code, sentence) {
    if (this.#opened.isSettled) return KeeplineError.fromClose(code, sentence);
    const status = Number(/\b[1-5]\d\d$/.exec(this.#failure)?.[0]) || void 0;
    const why = this.#failure || "closed before it was open; the browser does not tell why";
    return new KeeplineError("connect_failed", `Could not connect to ${this.#url}: ${why}`, { status });
  }
  #end(error) {
    if (this.#ended) return;
    this.#ended = error;
    this.#environment.clearTimeout(this.#patience);
    this.#heartbeat.stop();
    this.#sendQueue.close();
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {
    };
    socket.close(1e3);
    this.#opened.reject(error);
    this.#requests.fail(error);
    this.#onEnd?.(error);
  }
};
function lost(why) {
  return new KeeplineError("connection_lost", why);
}

// src/connector.js
var TOKEN_MS = 1e4;
var FAREWELL_MS = 1e3;
var Connector = class {
  #environment;
  #urls;
  #urlIndex = 0;
  #token;
  #owner;
  #plan;
  #moves;
  #resume;
  #era = 0;
  #next = null;
  #last = null;
  // the connection before `current`, which may still deliver frames in flight
  #isMoving = false;
  #goodbyeTimer = null;
  #retryTimer = null;
  #refusals = 0;
  #stopListening = () => {
  };
  /** The connection that was welcomed and is still open, or null. */
  current = null;
  /**
   * @param {object} environment
   * @param {{urls: string[], token: string | (() => string | Promise<string>), backoff?: object}} options
   * @param {object} owner
   * @param {() => string | undefined} owner.roomHint
   * @param {() => object | null} owner.probe returns a request without effect
   * @param {(connection: Connection, welcome: object) => void} owner.onWelcome
   * @param {(frame: object) => void} owner.onFrame
   * @param {(frame: object) => void} owner.onQueued
   * @param {() => void} owner.onLeaving the connection is about to be replaced: requests wait for the next one
   * @param {() => void} owner.onStaying the connection is not replaced after all
   * @param {() => void} owner.onDisconnected there is no connection any more
   * @param {(error: KeeplineError) => void} owner.onFailure an attempt failed; another one may follow
   * @param {(error: KeeplineError) => void} owner.onRetry another attempt follows
   * @param {(error: KeeplineError) => void} owner.onEnd no attempt follows
   */
  constructor(environment, { urls, token, backoff }, owner) {
    this.#environment = environment;
    this.#urls = urls;
    this.#token = token;
    this.#owner = owner;
    this.#plan = new ReconnectPlan(new Backoff(backoff, environment.random));
    this.#moves = new Backoff(backoff, environment.random);
  }
  start() {
    this.#refusals = 0;
    this.#listenForWakeUps();
    this.#attempt();
  }
  stop(error) {
    this.#disconnect(error);
    this.#stopListening();
  }
  /** The node asks the client to reconnect after `reconnect_after_ms`. */
  heedGoodbye({ reconnect_after_ms: waitMs = 0 }) {
    if (this.#goodbyeTimer !== null) return;
    const { now, setTimeout } = this.#environment;
    this.#plan.goodbye(now() + waitMs);
    this.#goodbyeTimer = setTimeout(() => this.#move(), waitMs);
  }
  /** Makes an attempt while there is no connection. */
  async #attempt() {
    const era = ++this.#era;
    this.#retryTimer = null;
    try {
      const welcome = await this.#greet();
      if (era === this.#era) this.#welcome(welcome);
    } catch (error) {
      if (era !== this.#era) return;
      this.#owner.onFailure(error);
      if (era === this.#era) this.#lose(error);
    }
  }
  /** Opens `#next` and sends `hello`. Resolves with the welcome. */
  async #greet(onSent) {
    const era = this.#era;
    const token = await this.#fetchToken();
    if (era !== this.#era) throw new KeeplineError("closed", "Overtaken");
    this.#next = this.#open(this.#address());
    const resume = this.#resume === void 0 ? {} : { resume: this.#resume };
    return this.#next.hello({ token, ...resume }, { onSent, onQueued: this.#owner.onQueued });
  }
  #open(url) {
    try {
      return new Connection(this.#environment, url, this.#owner.probe);
    } catch (cause) {
      throw new KeeplineError("connect_failed", `Could not connect to ${url}: ${cause.message}`, { cause });
    }
  }
  async #fetchToken() {
    if (typeof this.#token !== "function") return this.#token;
    const late = () => new Error("it took too long");
    try {
      return await withTimeout(Promise.resolve(this.#token()), TOKEN_MS, late, this.#environment);
    } catch (cause) {
      throw new KeeplineError("token_failed", `No token: ${cause?.message ?? cause}`, { cause });
    }
  }
  #address() {
    const url = this.#urls[this.#urlIndex % this.#urls.length];
    const room = this.#owner.roomHint();
    return room ? `${url}${url.includes("?") ? "&" : "?"}room=${encodeURIComponent(room)}` : url;
  }
  /** `#next` was welcomed: it becomes `current`. */
  #welcome(welcome) {
    const connection = this.current = this.#next;
    this.#next = null;
    this.#refusals = 0;
    this.#moves.reset();
    this.#plan.welcomed(this.#environment.now());
    this.#resume = welcome.resume;
    this.#owner.onWelcome(connection, welcome);
    connection.serve(this.#owner.onFrame, (error) => this.#ended(connection, error));
  }
  /** Opens the next connection while this one still works, so that nothing is missed in between. */
  async #move() {
    const era = ++this.#era;
    this.#isMoving = true;
    this.#urlIndex += 1;
    try {
      const welcome = await this.#greet(this.#owner.onLeaving);
      if (era === this.#era) this.#takeOver(welcome);
    } catch (error) {
      if (era !== this.#era) return;
      this.#owner.onFailure(error);
      if (era === this.#era) this.#stay(error);
    }
  }
  /** Moving failed: keep the old connection for as long as it lasts, and try again. */
  #stay(error) {
    this.#isMoving = false;
    this.#next?.abandon();
    this.#next = null;
    if (!this.current) return this.#lose(error);
    this.#owner.onStaying();
    if (nextStep(error) !== "retry") return;
    const wait = (error.retryAfterMs ?? 0) + this.#moves.next();
    this.#goodbyeTimer = this.#environment.setTimeout(() => this.#move(), wait);
  }
  #takeOver(welcome) {
    this.#isMoving = false;
    this.#goodbyeTimer = null;
    this.#last?.abandon();
    const last = this.#last = this.current;
    this.#environment.setTimeout(() => last?.abandon(), FAREWELL_MS);
    this.#welcome(welcome);
  }
  /** A connection has ended. If a move is in progress, its outcome decides what happens next. */
  #ended(connection, error) {
    if (connection !== this.current) return;
    if (!this.#isMoving) return this.#lose(error);
    this.current = null;
    this.#owner.onDisconnected();
  }
  /** There is no connection any more. `error` decides what happens next. */
  #lose(error) {
    this.#disconnect(error);
    const next = nextStep(error);
    const refused = next === "fresh_token" && (typeof this.#token !== "function" || ++this.#refusals > 1);
    if (next === "stop" || refused) return this.#owner.onEnd(error);
    this.#urlIndex += 1;
    const { now, setTimeout } = this.#environment;
    const delay = this.#plan.delay(now(), error.retryAfterMs);
    this.#retryTimer = setTimeout(() => this.#attempt(), next === "fresh_token" ? 0 : delay);
    this.#owner.onRetry(error);
  }
  #disconnect(error) {
    const { clearTimeout } = this.#environment;
    this.#era += 1;
    this.#isMoving = false;
    clearTimeout(this.#goodbyeTimer);
    clearTimeout(this.#retryTimer);
    this.#goodbyeTimer = this.#retryTimer = null;
    for (const connection of [this.current, this.#next, this.#last]) connection?.abandon(error);
    this.current = this.#next = this.#last = null;
    this.#owner.onDisconnected();
  }
  #listenForWakeUps() {
    const { window, document } = this.#environment;
    const onOnline = () => this.#wakeUp();
    const onVisible = () => document.visibilityState === "visible" && this.#wakeUp();
    const stops = [
      window?.addEventListener && listen(window, { online: onOnline }),
      document?.addEventListener && listen(document, { visibilitychange: onVisible })
    ];
    this.#stopListening = () => stops.forEach((stop) => stop?.());
  }
  /** The network or the user is back: reconnect now, or test the connection. */
  #wakeUp() {
    if (this.current) return this.current.suspect();
    if (this.#retryTimer === null || !this.#plan.mayHurry(this.#environment.now())) return;
    this.#environment.clearTimeout(this.#retryTimer);
    this.#attempt();
  }
};

// src/client.js
var Keepline = class extends Emitter {
  #connector;
  #calls;
  #connected;
  // open while connected
  #iceServers = [];
  #first = null;
  /**
   * @param {object} options
   * @param {string | string[]} options.url WebSocket addresses of the cluster, preferred ones first
   * @param {string | (() => string | Promise<string>)} options.token JWT of the user; a function is called before
   *   every attempt, so it can return a fresh token
   * @param {string} [options.room] the room that will be joined first: a hint for the load balancer
   * @param {{baseMs?: number, capMs?: number}} [options.backoff]
   * @param {object} [environment] replaces parts of the browser, for tests and other runtimes
   * @throws {TypeError} if an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket
   */
  constructor({ url, token, room, backoff }, environment = {}) {
    super();
    const whole = { ...browserEnvironment(), ...environment };
    if (!whole.WebSocket) {
      throw new TypeError("This runtime has no WebSocket: pass one, new Keepline(options, { WebSocket })");
    }
    const urls = [url].flat().map(parseSocketUrl);
    if (urls.length === 0) throw new TypeError("At least one url is needed");
    this.#connected = new ReadyEvent(whole);
    this.#calls = new Calls(whole, {
      user: () => this.user,
      iceServers: () => this.#iceServers,
      suspect: () => this.#connector.current?.suspect(),
      requestWhenConnected: (frame) => this.#requestWhenConnected(frame)
    });
    this.#connector = new Connector(whole, { urls, token, backoff }, {
      roomHint: () => this.#calls.anyRoom ?? room,
      probe: () => this.#calls.probe(),
      onWelcome: (connection, welcome) => this.#welcome(connection, welcome),
      onFrame: (frame) => this.#receive(frame),
      onQueued: ({ ahead, wait_ms }) => this.emit("queued", { ahead, wait_ms }),
      onLeaving: () => this.#calls.pause(),
      onStaying: () => this.#calls.goOn(),
      onDisconnected: () => this.#calls.disconnected(),
      onFailure: (error) => this.emit("error", error),
      onRetry: ({ code }) => this.#setState(this.state === "connecting" ? "connecting" : "reconnecting", code),
      onEnd: (error) => this.#shut(error)
    });
    this.state = "closed";
    this.node = null;
    this.user = null;
  }
  /** Connects and stays connected. Resolves with the first `welcome`; rejects if the client gives up. */
  connect() {
    if (this.state !== "closed") return this.#first.promise;
    this.#first = new Deferred();
    this.#setState("connecting");
    this.#connector.start();
    return this.#first.promise;
  }
  /** Closes the connection for good. Calls end on this side; their rooms last until the grace period is over. */
  close() {
    if (this.state !== "closed") this.#shut(new KeeplineError("closed", "Closed by the app"));
  }
  /**
   * Joins a room, and again after every reconnect, until the call has `ended`. Connects if necessary. For a room that
   * was joined already, returns the same call and applies `options` to it.
   * @param {string} roomId
   * @param {{media?: MediaStream, peerConnection?: RTCPeerConnection, iceServers?: RTCIceServer[]}} [options]
   * @returns {Call} at once; `call.ready` resolves when the room is joined
   */
  join(roomId, options = {}) {
    const call = this.#calls.join(roomId.toLowerCase(), options);
    if (this.state === "closed") this.connect();
    return call;
  }
  /**
   * Reports the other member of a room to the app's moderators, whether or not this client has joined the room. Waits
   * for the connection, and resolves once the report is stored. Repeating the same report is harmless.
   */
  async report(roomId, reason) {
    checkText(reason, MAX_REASON_LENGTH, roomId);
    await this.#requestWhenConnected({ type: "report", room: roomId.toLowerCase(), reason });
  }
  /** Makes a request about a room that this client need not have joined. */
  async #requestWhenConnected(frame) {
    const { room } = frame;
    if (this.state === "closed") throw new KeeplineError("closed", "Not connected", { room });
    await this.#connected.wait();
    const { current } = this.#connector;
    if (!current) throw new KeeplineError("connection_lost", "Not connected", { room });
    return current.request(frame);
  }
  #setState(state, reason) {
    if (this.state === state) return;
    this.state = state;
    if (state === "connected") this.#connected.set();
    else this.#connected.clear();
    this.emit("state", { state, reason });
  }
  #welcome(connection, welcome) {
    this.node = welcome.node;
    this.user = welcome.user;
    this.#refreshIce(welcome.ice_servers);
    this.#setState("connected");
    this.emit("welcome", welcome);
    this.#first.resolve(welcome);
    if (this.#connector.current === connection) this.#calls.connected(connection, welcome);
  }
  #refreshIce(iceServers = []) {
    this.#iceServers = iceServers;
    this.#calls.refreshIce();
  }
  #receive(frame) {
    if (frame.type === "goodbye") return this.#connector.heedGoodbye(frame);
    if (frame.type === "ice") {
      this.#refreshIce(frame.ice_servers);
      return this.emit("ice", { ice_servers: frame.ice_servers });
    }
    if (frame.room !== void 0) return this.#calls.receive(frame);
    if (frame.type === "error") this.emit("error", KeeplineError.fromFrame(frame));
  }
  #shut(error) {
    this.#connector.stop(error);
    this.#first.reject(error);
    this.#connected.fail(error);
    this.#setState("closed", error.code);
    this.#calls.close(error);
  }
};
function parseSocketUrl(text) {
  if (!/^wss?:\/\/[^\s/?#]+[^\s#]*$/i.test(text)) throw new TypeError(`Not a WebSocket address: ${text}`);
  return new URL(text) && String(text);
}
export {
  Call,
  Keepline,
  KeeplineError
};

import { Backoff } from "./backoff.js";
import { Call } from "./call.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { browserEnvironment } from "./environment.js";
import { ABNORMAL_CLOSURE, ACCIDENT, CLOSES, KeeplineError, PASSING_ERRORS } from "./errors.js";
import { encodeFrame, parseFrame } from "./frames.js";

const SUBPROTOCOL = "keepline.v1";
const MAX_BUFFERED_BYTES = 1024 * 1024;
const MAX_PENDING_REQUESTS = 64;
const CONNECT_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 10_000;
const PROBE_TIMEOUT_MS = 5_000;
const MOVE_TIMEOUT_MS = 5_000;
const FAREWELL_MS = 1_000;
const STABLE_AFTER_MS = 5_000;
const RATE_LIMIT_PAUSE_MS = 1_000;

/**
 * The connection to the cluster. It reconnects by itself until {@link Keepline.close} or a close code that
 * forbids it, rotating over the given addresses.
 *
 * Events: `state` {state, reason?}, `welcome` (the frame, at each connection), `ice` {ice_servers},
 * `error` {@link KeeplineError}.
 */
export class Keepline extends Emitter {
  #environment;
  #urls;
  #urlIndex = 0;
  #token;
  #roomHint;
  #backoff;
  #socket = null;
  #resume;
  #iceServers = [];
  #calls = new Map();
  #requests = new Map();
  #lastRequestId = 0;
  #attempt = 0;
  #attemptTimer;
  #retryTimer = null;
  #goodbyeTimer = null;
  #next = null; // the socket that is to take over after a goodbye
  #last = null; // the socket that it took over from
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
    /** `connecting`, `connected`, `reconnecting` or `closed`. */
    this.state = "closed";
    /** Name of the node we are connected to, once there was a `welcome`. */
    this.node = null;
    /** UUID of the user, once there was a `welcome`. */
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
      forget: (call) => this.#calls.delete(call.roomId),
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
    const timer = setTimeout(() => waiter.reject(new KeeplineError("timeout", "Not connected in time")), REQUEST_TIMEOUT_MS);
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
      if (this.#resume !== undefined) hello.resume = this.#resume;
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
    const calls = [...this.#calls.values()]; // Those that a listener joins below are held by `join` itself.
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
      // No proof that the connection is dead: a promise to store something may wait for the cluster's memory.
      answer.reject(new KeeplineError("timeout", `No answer to ${frame.type}`, { room: frame.room }));
    }, REQUEST_TIMEOUT_MS);
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
      const early = []; // A session that is resumed holds its rooms before it is welcomed.
      next.onopen = () => {
        next.send(encodeFrame(hello));
        // From now on this connection is heard no more: what is sent waits for the next one.
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
    const last = (this.#last = this.#socket);
    last.onclose = null; // It may be told that it was replaced: by us.
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
}

function abandon(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(1000);
}

function parseSocketUrl(text) {
  const url = new URL(text);
  if (url.protocol !== "ws:" && url.protocol !== "wss:") throw new TypeError(`Not a WebSocket address: ${text}`);
  return url.href;
}

import { Backoff, ReconnectPlan } from "./backoff.js";
import { Calls } from "./calls.js";
import { Connection } from "./connection.js";
import { Deferred } from "./deferred.js";
import { Emitter, listen } from "./emitter.js";
import { browserEnvironment, withTimeout } from "./environment.js";
import { KeeplineError, nextStep } from "./errors.js";
import { checkText, MAX_REASON_LENGTH } from "./frames.js";
import { Gate } from "./gate.js";

const TOKEN_MS = 10_000;
const FAREWELL_MS = 1_000;

/**
 * The connection to the cluster. It reconnects by itself until {@link Keepline.close} or a close code that
 * forbids it, rotating over the given addresses.
 *
 * Events: `state` {state, reason?}, `welcome` (the frame, at each connection), `queued` {ahead, wait_ms} (the node is
 * busy and has us wait), `ice` {ice_servers}, `error` {@link KeeplineError}, with each attempt that failed.
 *
 * How it goes from one connection to the next: an attempt opens `#next`; its welcome makes it `#current`. When
 * `#current` ends the next attempt follows as `#plan` says. After a `goodbye` an attempt is made while `#current` still
 * works, and again after each that fails, until one takes over or `#current` has ended. Whatever belongs to an
 * attempt that was overtaken finds another `#era` than its own, and does nothing.
 */
export class Keepline extends Emitter {
  #environment;
  #urls;
  #urlIndex = 0;
  #token;
  #roomHint;
  #gate;
  #plan;
  #moves;
  #calls;
  #resume;
  #iceServers = [];
  #era = 0;
  #current = null;
  #next = null;
  #last = null; // what `#current` took over from, which may still bring what was on its way
  #isMoving = false;
  #goodbyeTimer = null;
  #retryTimer = null;
  #refusals = 0;
  #first = null;
  #stopListening = null;

  /**
   * @param {object} options
   * @param {string | string[]} options.url WebSocket addresses of the cluster, most wanted first
   * @param {string | (() => string | Promise<string>)} options.token JWT of the user; a function is asked before
   *   every attempt, so it can hand out fresh ones
   * @param {string} [options.room] the room that will be joined first: a hint for the load balancer
   * @param {{baseMs?: number, capMs?: number}} [options.backoff]
   * @param {object} [environment] replaces parts of the browser: for tests and other runtimes
   * @throws {TypeError} when an address is not a `ws:` or `wss:` URL, or the runtime has no WebSocket
   */
  constructor({ url, token, room, backoff }, environment = {}) {
    super();
    this.#environment = { ...browserEnvironment(), ...environment };
    if (!this.#environment.WebSocket) {
      throw new TypeError("This runtime has no WebSocket: pass one, new Keepline(options, { WebSocket })");
    }
    this.#urls = [url].flat().map(parseSocketUrl);
    if (this.#urls.length === 0) throw new TypeError("At least one url is needed");
    this.#token = token;
    this.#roomHint = room;
    this.#gate = new Gate(this.#environment);
    this.#plan = new ReconnectPlan(new Backoff(backoff, this.#environment.random));
    this.#moves = new Backoff(backoff, this.#environment.random);
    this.#calls = new Calls(this.#environment, {
      user: () => this.user,
      iceServers: () => this.#iceServers,
      suspect: () => this.#current?.suspect(),
      report: (roomId, reason) => this.report(roomId, reason),
    });
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
    this.#refusals = 0;
    this.#listenForWakeUps();
    this.#setState("connecting");
    this.#attempt();
    return this.#first.promise;
  }

  /** Closes the connection for good; calls end here, while their rooms go on until the grace period is over. */
  close() {
    if (this.state !== "closed") this.#shut(new KeeplineError("closed", "Closed by the app"));
  }

  /**
   * Holds a room, now and after every reconnect, until the call has `ended`. Connects when that was not done yet. A room
   * that is held gives the same call, with what `options` add to it.
   * @param {string} roomId
   * @param {{media?: MediaStream, peerConnection?: RTCPeerConnection, iceServers?: RTCIceServer[]}} [options]
   * @returns {Call} at once; `call.ready` tells when the room is held
   */
  join(roomId, options = {}) {
    const call = this.#calls.join(roomId.toLowerCase(), options);
    if (this.state === "closed") this.connect();
    return call;
  }

  /**
   * Reports the other member of a room to the app's moderators, whether the room is held, has been or never was.
   * Waits for the connection; resolves once the report is stored. To repeat the same one does no harm.
   */
  async report(roomId, reason) {
    checkText(reason, MAX_REASON_LENGTH, roomId);
    if (this.state === "closed") throw new KeeplineError("closed", "Not connected", { room: roomId });
    await this.#gate.wait();
    if (!this.#current) throw new KeeplineError("connection_lost", "Not connected", { room: roomId });
    await this.#current.request({ type: "report", room: roomId.toLowerCase(), reason });
  }

  #setState(state, reason) {
    if (this.state === state) return;
    this.state = state;
    if (state === "connected") this.#gate.open();
    else this.#gate.shut();
    this.emit("state", { state, reason });
  }

  /** One attempt to connect, when there is no connection. */
  async #attempt() {
    const era = ++this.#era;
    this.#retryTimer = null;
    try {
      const welcome = await this.#greet();
      if (era === this.#era) this.#welcome(welcome);
    } catch (error) {
      if (era !== this.#era) return;
      this.emit("error", error);
      if (era === this.#era) this.#lose(error);
    }
  }

  /** Opens `#next` and says hello on it; resolves with the welcome. */
  async #greet(onSent) {
    const era = this.#era;
    const token = await this.#fetchToken();
    if (era !== this.#era) throw new KeeplineError("closed", "Overtaken");
    this.#next = new Connection(this.#environment, this.#address(), () => this.#probe());
    const resume = this.#resume === undefined ? {} : { resume: this.#resume };
    const onQueued = ({ ahead, wait_ms }) => this.emit("queued", { ahead, wait_ms });
    return this.#next.hello({ token, ...resume }, { onSent, onQueued });
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
    const room = this.#calls.anyRoom ?? this.#roomHint;
    return room ? `${url}${url.includes("?") ? "&" : "?"}room=${encodeURIComponent(room)}` : url;
  }

  /** For nodes without `ping`: joining a room that is held changes nothing. */
  #probe() {
    const room = this.#calls.heldRoom;
    return room === undefined ? null : { type: "join", room };
  }

  /** `#next` was welcomed: it is what everything goes through from now on. */
  #welcome(welcome) {
    const connection = (this.#current = this.#next);
    this.#next = null;
    this.#refusals = 0;
    this.#moves.reset();
    this.#plan.welcomed(this.#environment.now());
    this.#resume = welcome.resume;
    this.node = welcome.node;
    this.user = welcome.user;
    this.#refreshIce(welcome.ice_servers);
    this.#setState("connected");
    this.emit("welcome", welcome);
    this.#first.resolve(welcome);
    if (this.#current !== connection) return; // a listener closed the client
    this.#calls.connected(connection, welcome);
    connection.serve(
      (frame) => this.#receive(frame),
      (error) => this.#ended(connection, error),
    );
  }

  #refreshIce(iceServers = []) {
    this.#iceServers = iceServers;
    this.#calls.refreshIce();
  }

  #receive(frame) {
    if (frame.type === "goodbye") return this.#heedGoodbye(frame);
    if (frame.type === "ice") {
      this.#refreshIce(frame.ice_servers);
      return this.emit("ice", { ice_servers: frame.ice_servers });
    }
    if (frame.room !== undefined) return this.#calls.receive(frame);
    if (frame.type === "error") this.emit("error", KeeplineError.fromFrame(frame));
  }

  #heedGoodbye({ reconnect_after_ms: waitMs = 0 }) {
    if (this.#goodbyeTimer !== null) return;
    const { now, setTimeout } = this.#environment;
    this.#plan.goodbye(now() + waitMs);
    this.#goodbyeTimer = setTimeout(() => this.#move(), waitMs);
  }

  /** Opens the next connection while this one still works, so that nothing is missed in between. */
  async #move() {
    const era = ++this.#era;
    this.#isMoving = true;
    this.#urlIndex += 1;
    try {
      // From its hello on the connection before is heard no more: what is sent waits for the next one.
      const welcome = await this.#greet(() => this.#calls.pause());
      if (era === this.#era) this.#takeOver(welcome);
    } catch (error) {
      if (era !== this.#era) return;
      this.emit("error", error);
      if (era === this.#era) this.#stay(error);
    }
  }

  /** Moving failed: go on as long as the old connection lasts, and try again. */
  #stay(error) {
    this.#isMoving = false;
    this.#next?.abandon();
    this.#next = null;
    if (!this.#current) return this.#lose(error);
    this.#calls.goOn();
    if (nextStep(error) !== "retry") return;
    const wait = (error.retryAfterMs ?? 0) + this.#moves.next();
    this.#goodbyeTimer = this.#environment.setTimeout(() => this.#move(), wait);
  }

  #takeOver(welcome) {
    const { setTimeout } = this.#environment;
    this.#isMoving = false;
    this.#goodbyeTimer = null;
    this.#last?.abandon();
    const last = (this.#last = this.#current);
    setTimeout(() => last?.abandon(), FAREWELL_MS);
    this.#welcome(welcome);
  }

  /** A connection has ended. Where the next one is under way, that one decides what happens. */
  #ended(connection, error) {
    if (connection !== this.#current) return; // `#last`, told that it was replaced: by us
    if (!this.#isMoving) return this.#lose(error);
    this.#current = null;
    this.#calls.disconnected();
  }

  /** There is no connection, for this reason; what comes next depends on it. */
  #lose(error) {
    this.#disconnect();
    const next = nextStep(error);
    const refused = next === "fresh_token" && (typeof this.#token !== "function" || ++this.#refusals > 1);
    if (next === "stop" || refused) return this.#shut(error);
    this.#urlIndex += 1;
    const { now, setTimeout } = this.#environment;
    const delay = this.#plan.delay(now(), error.retryAfterMs);
    this.#retryTimer = setTimeout(() => this.#attempt(), next === "fresh_token" ? 0 : delay);
    this.#setState(this.state === "connecting" ? "connecting" : "reconnecting", error.code);
  }

  #disconnect() {
    const { clearTimeout } = this.#environment;
    this.#era += 1;
    this.#isMoving = false;
    clearTimeout(this.#goodbyeTimer);
    clearTimeout(this.#retryTimer);
    this.#goodbyeTimer = this.#retryTimer = null;
    for (const connection of [this.#current, this.#next, this.#last]) connection?.abandon();
    this.#current = this.#next = this.#last = null;
    this.#calls.disconnected();
  }

  #shut(error) {
    this.#disconnect();
    this.#stopListening();
    this.#first.reject(error);
    this.#gate.bar(error);
    this.#setState("closed", error.code);
    this.#calls.close(error);
  }

  #listenForWakeUps() {
    const { window, document } = this.#environment;
    const onOnline = () => this.#wakeUp();
    const onVisible = () => document.visibilityState === "visible" && this.#wakeUp();
    // React Native has a `window` that is no EventTarget.
    const stops = [
      window?.addEventListener && listen(window, { online: onOnline }),
      document?.addEventListener && listen(document, { visibilitychange: onVisible }),
    ];
    this.#stopListening = () => stops.forEach((stop) => stop?.());
  }

  /** The network or the user is back: no reason to wait, and a reason to ask whether the connection lives. */
  #wakeUp() {
    if (this.#current) return this.#current.suspect();
    if (this.#retryTimer === null || !this.#plan.mayHurry(this.#environment.now())) return;
    this.#environment.clearTimeout(this.#retryTimer);
    this.#attempt();
  }
}

function parseSocketUrl(text) {
  if (!/^wss?:\/\/[^\s/?#]+[^\s#]*$/i.test(text)) throw new TypeError(`Not a WebSocket address: ${text}`);
  return new URL(text) && String(text);
}

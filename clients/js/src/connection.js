import { Deferred } from "./deferred.js";
import { KeeplineError } from "./errors.js";
import { DEFAULT_LIMITS, encodeFrame, parseFrame } from "./frames.js";
import { Heartbeat } from "./heartbeat.js";
import { SendQueue } from "./pacing.js";
import { Requests } from "./requests.js";

const SUBPROTOCOL = "keepline.v1";
const MAX_BUFFERED_BYTES = 1024 * 1024;
const MAX_PENDING_REQUESTS = 64;
const MAX_EARLY_FRAMES = 1_000;
const WELCOME_MS = 10_000;
const ANSWER_MS = 10_000;
const RATE_LIMIT_PAUSE_MS = 1_000;
const MAX_RATE_LIMIT_PAUSE_MS = 10_000;

/** One WebSocket to one node, from the handshake to the close: requests and answers, within the server's limits. */
export class Connection {
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
    this.#socket.onerror = (event) => (this.#failure = event?.message || event?.error?.message || "");
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
    if (frame) this.request(frame, { urgent: true }).catch(() => {});
    return Boolean(frame);
  }

  #giveUp({ type, room }, answer) {
    // This does not prove that the connection is dead: a change may have to wait until Redis stores it.
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
    const isTooFast = frame.code === "rate_limited" && frame.room === undefined && answered !== "report";
    if (isTooFast) this.#slowDown(frame);
    if (answered) return;
    if (this.#onFrame) this.#onFrame(frame);
    else this.#keepEarly(frame);
  }

  #slowDown({ retry_after_ms: ms = RATE_LIMIT_PAUSE_MS }) {
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
    const status = Number(/\b[1-5]\d\d$/.exec(this.#failure)?.[0]) || undefined;
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
    socket.onerror = () => {}; // some runtimes throw errors without a listener
    socket.close(1000);
    this.#opened.reject(error);
    this.#requests.fail(error);
    this.#onEnd?.(error);
  }
}

function lost(why) {
  return new KeeplineError("connection_lost", why);
}

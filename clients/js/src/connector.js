import { Backoff, ReconnectPlan } from "./backoff.js";
import { Connection } from "./connection.js";
import { listen } from "./emitter.js";
import { withTimeout } from "./environment.js";
import { KeeplineError, nextStep } from "./errors.js";

const TOKEN_MS = 10_000;
const FAREWELL_MS = 1_000;

/**
 * Moves from one connection to the next, for as long as the protocol allows.
 *
 * An attempt opens `#next`, and its welcome makes that `current`. When `current` ends, `#plan` schedules the next
 * attempt. After a `goodbye`, attempts are made while `current` still works, until one takes over or `current` ends.
 * Each attempt has its own `#era`. The continuation of an outdated attempt sees that the era has changed and does
 * nothing.
 */
export class Connector {
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
  #last = null; // the connection before `current`, which may still deliver frames in flight
  #isMoving = false;
  #goodbyeTimer = null;
  #retryTimer = null;
  #refusals = 0;
  #stopListening = () => {};
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
    const resume = this.#resume === undefined ? {} : { resume: this.#resume };
    return this.#next.hello({ token, ...resume }, { onSent, onQueued: this.#owner.onQueued });
  }

  #open(url) {
    try {
      return new Connection(this.#environment, url, this.#owner.probe);
    } catch (cause) {
      // for example, a page on https: may not open ws:
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
    const connection = (this.current = this.#next);
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
      // Once the new hello is sent, the node ignores the old connection: requests wait for the new one.
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
    const last = (this.#last = this.current);
    this.#environment.setTimeout(() => last?.abandon(), FAREWELL_MS);
    this.#welcome(welcome);
  }

  /** A connection has ended. If a move is in progress, its outcome decides what happens next. */
  #ended(connection, error) {
    if (connection !== this.current) return; // `#last`, which we have replaced
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
    // React Native's `window` is not an EventTarget.
    const stops = [
      window?.addEventListener && listen(window, { online: onOnline }),
      document?.addEventListener && listen(document, { visibilitychange: onVisible }),
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
}

import { Deferred } from "./deferred.js";
import { withTimeout } from "./environment.js";
import { KeeplineError } from "./errors.js";

const MAX_WAITING = 32;
const PATIENCE_MS = 10_000;

/** Lets requests wait until something is ready or has failed for good: at most 32 requests, for up to 10 seconds. */
export class ReadyEvent {
  #environment;
  #room;
  #isSet = false;
  #error = null;
  #waiting = new Set();

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
    if (this.#waiting.size >= MAX_WAITING) {
      throw new KeeplineError("queue_full", "Too many requests wait for the connection", details);
    }
    const waiter = new Deferred();
    this.#waiting.add(waiter);
    const late = () => new KeeplineError("timeout", "Not connected in time", details);
    try {
      await withTimeout(waiter.promise, PATIENCE_MS, late, this.#environment);
    } finally {
      this.#waiting.delete(waiter);
    }
  }
}

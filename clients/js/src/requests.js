import { Deferred } from "./deferred.js";
import { KeeplineError } from "./errors.js";

/** The pending requests of one connection. */
export class Requests {
  #pending = new Map();
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
}

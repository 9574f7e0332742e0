import { Deferred } from "./deferred.js";
import { KeeplineError } from "./errors.js";

/** The requests of one connection that wait for their answers. */
export class Requests {
  #pending = new Map();
  #lastId = 0;

  get size() {
    return this.#pending.size;
  }

  /** A new request: `id` for its frame, `answer` for whoever asked, `isOpen` while nobody has answered. */
  open(type) {
    const id = String(++this.#lastId);
    const answer = new Deferred();
    this.#pending.set(id, { type, answer });
    const close = () => this.#pending.delete(id);
    answer.promise.then(close, close);
    return { id, answer, isOpen: () => this.#pending.has(id) };
  }

  /** Gives an answer to its request and returns what type that had; null when the frame answers nothing. */
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

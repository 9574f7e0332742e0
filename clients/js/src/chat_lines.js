import { Backoff } from "./backoff.js";
import { isPassing, KeeplineError } from "./errors.js";
import { checkText } from "./frames.js";

const MAX_WAITING = 256;

/**
 * Writes chat messages exactly once: each is sent with the same key until its outcome is known.
 *
 * The messages of a call are sent one after the other. So they are stored in the order in which the app wrote them, and
 * the cluster needs to know the key of only one at a time.
 */
export class ChatLines {
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
    if (key !== undefined) checkText(key, maxKey, this.#room);
    if (this.#waiting >= MAX_WAITING) throw this.#error("queue_full", "Too many lines of chat are waiting");
    this.#waiting += 1;
    const written = this.#last.then(() => this.#write({ type: "chat", text, key: key ?? this.#newKey() }));
    this.#last = written.catch(() => {});
    return written.finally(() => (this.#waiting -= 1));
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
    for (;;) {
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
    if (frame.key !== undefined && !this.#link.limits().chat_key) throw this.#unknown("This node knows no keys");
    return this.#link.request({ ...frame, room: this.#room });
  }
}

import { KeeplineError } from "./errors.js";

const MAX_SIGNALS = 256;
const MAX_BYTES = 1024 * 1024;

/** A call's unsent signals. Those of the negotiation go before the app's. */
export class Outbox {
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
}

class Queue {
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
}

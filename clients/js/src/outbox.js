const MAX_APP_SIGNALS = 256;
const MAX_MEDIA_SIGNALS = 64;
const MAX_BYTES = 1024 * 1024;

/** The signals of one call that wait until both sides are there, as JSON. Those of the negotiation overtake the app's. */
export class Outbox {
  #app = new Queue(MAX_APP_SIGNALS);
  #media = new Queue(MAX_MEDIA_SIGNALS);

  get isEmpty() {
    return this.#app.length + this.#media.length === 0;
  }

  push(data) {
    ("app" in data ? this.#app : this.#media).push(JSON.stringify(data));
  }

  shift() {
    return this.#media.shift() ?? this.#app.shift();
  }

  /** Forgets what was said about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#media = new Queue(MAX_MEDIA_SIGNALS);
  }
}

/** Texts in order; beyond its limits the oldest are dropped. */
class Queue {
  #texts = [];
  #limit;
  #size = 0;

  constructor(limit) {
    this.#limit = limit;
  }

  get length() {
    return this.#texts.length;
  }

  push(text) {
    this.#texts.push(text);
    this.#size += text.length;
    while (this.#texts.length > this.#limit || this.#size > MAX_BYTES) this.shift();
  }

  shift() {
    const text = this.#texts.shift();
    this.#size -= text?.length ?? 0;
    return text;
  }
}

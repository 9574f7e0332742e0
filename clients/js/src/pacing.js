const SHARE_OF_BURST = 0.7; // the rest is for urgent frames, and for frames that the network delivers in bursts
const SHARE_OF_RATE = 0.9;

/** Keeps frames within the server's rate limit: a token bucket that is smaller than the server's. */
export class Pacer {
  #perMs;
  #burst;
  #tokens;
  #at;

  constructor({ frames_per_second: rate, frames_burst: burst }, now) {
    this.#perMs = (rate * SHARE_OF_RATE) / 1000;
    this.#burst = Math.max(1, burst * SHARE_OF_BURST);
    this.#tokens = this.#burst;
    this.#at = now;
  }

  /** Whether a frame may be sent at `now`. If so, counts it. */
  take(now) {
    if (this.wait(now) > 0) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Counts a frame that is sent in any case. */
  charge(now) {
    this.#refill(now);
    this.#tokens -= 1;
  }

  /** The ms until a frame may be sent. */
  wait(now) {
    this.#refill(now);
    return Math.max(0, this.#at - now, Math.ceil((1 - this.#tokens) / this.#perMs));
  }

  /** The server accepts nothing for `ms`. */
  stopFor(ms, now) {
    this.#refill(now);
    this.#tokens = Math.min(this.#tokens, 0);
    this.#at = Math.max(this.#at, now + ms);
  }

  #refill(now) {
    if (now <= this.#at) return;
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs);
    this.#at = now;
  }
}

/** Frames that wait for the pacer, first in, first out. */
export class SendQueue {
  #environment;
  #pacer;
  #waiting = [];
  #timer = null;

  constructor(environment, limits) {
    this.#environment = environment;
    this.setLimits(limits);
  }

  get length() {
    return this.#waiting.length;
  }

  setLimits(limits) {
    this.#pacer = new Pacer(limits, this.#environment.now());
  }

  /** Calls `send` when a frame may be sent, possibly at once. */
  add(send) {
    if (this.#waiting.length === 0 && this.#pacer.take(this.#environment.now())) send();
    else if (this.#waiting.push(send) === 1) this.#schedule();
  }

  /** Sends an urgent frame. */
  sendNow(send) {
    this.#pacer.charge(this.#environment.now());
    send();
  }

  stopFor(ms) {
    this.#pacer.stopFor(ms, this.#environment.now());
  }

  /** Drops waiting frames. */
  close() {
    this.#waiting.length = 0;
    this.#environment.clearTimeout(this.#timer);
  }

  #schedule() {
    const { now, setTimeout } = this.#environment;
    this.#timer = setTimeout(() => this.#flush(), this.#pacer.wait(now()));
  }

  #flush() {
    while (this.#waiting.length > 0 && this.#pacer.take(this.#environment.now())) this.#waiting.shift()();
    if (this.#waiting.length > 0) this.#schedule();
  }
}

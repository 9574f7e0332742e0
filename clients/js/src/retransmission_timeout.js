const FIRST_MS = 1_000;
const MIN_MS = 500;
const MAX_MS = 8_000;
const MAX_DOUBLINGS = 10;

/** How long to wait for an acknowledgement: follows the measured round trip (RFC 6298), doubles with each timeout. */
export class RetransmissionTimeout {
  #smoothed = null;
  #variation = 0;
  #doublings = 0;

  /** A signal was acknowledged after `ms`. Only for signals that were sent once: others are ambiguous. */
  measured(ms) {
    if (this.#smoothed === null) {
      this.#smoothed = ms;
      this.#variation = ms / 2;
    } else {
      this.#variation += (Math.abs(ms - this.#smoothed) - this.#variation) / 4;
      this.#smoothed += (ms - this.#smoothed) / 8;
    }
  }

  /** A signal was acknowledged, or the connection changed. */
  progressed() {
    this.#doublings = 0;
  }

  /** The timeout has passed without an acknowledgement. */
  passed() {
    this.#doublings = Math.min(this.#doublings + 1, MAX_DOUBLINGS);
  }

  /** The current timeout. */
  get ms() {
    const base = this.#smoothed === null ? FIRST_MS : Math.max(MIN_MS, this.#smoothed + 4 * this.#variation);
    return Math.min(MAX_MS, base * 2 ** this.#doublings);
  }
}

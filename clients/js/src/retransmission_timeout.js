const FIRST_MS = 1_000;
const MIN_MS = 500;
const MAX_MS = 8_000;
const MAX_DOUBLINGS = 10;

/** When to repeat: the round trip as it was measured (RFC 6298), doubled each time that nothing came. */
export class RetransmissionTimeout {
  #smoothed = null;
  #variation = 0;
  #doublings = 0;

  /** A signal that was sent once was acknowledged after so long. */
  measured(ms) {
    if (this.#smoothed === null) {
      this.#smoothed = ms;
      this.#variation = ms / 2;
    } else {
      this.#variation += (Math.abs(ms - this.#smoothed) - this.#variation) / 4;
      this.#smoothed += (ms - this.#smoothed) / 8;
    }
  }

  /** Something was acknowledged, or the way is another one. */
  progressed() {
    this.#doublings = 0;
  }

  /** Nothing came in time. */
  passed() {
    this.#doublings = Math.min(this.#doublings + 1, MAX_DOUBLINGS);
  }

  /** How long to wait. */
  get ms() {
    const base = this.#smoothed === null ? FIRST_MS : Math.max(MIN_MS, this.#smoothed + 4 * this.#variation);
    return Math.min(MAX_MS, base * 2 ** this.#doublings);
  }
}

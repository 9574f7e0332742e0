/** Exponential backoff with full jitter: any time between now and a ceiling that doubles up to a cap. */
export class Backoff {
  #attempt = 0;

  constructor({ baseMs = 250, capMs = 8_000 } = {}, random = Math.random) {
    this.baseMs = baseMs;
    this.capMs = capMs;
    this.random = random;
  }

  next() {
    const ceiling = Math.min(this.capMs, this.baseMs * 2 ** this.#attempt++);
    return this.random() * ceiling;
  }

  reset() {
    this.#attempt = 0;
  }
}

const STABLE_AFTER_MS = 5_000;
const MAX_SHORT_CONNECTIONS = 3;

/** Exponential backoff with full jitter: any time between now and a ceiling that doubles up to a cap. */
export class Backoff {
  #attempt = 0;

  constructor({ baseMs = 250, capMs = 10_000 } = {}, random = Math.random) {
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

/**
 * When a client comes back. The waits start over after a welcome, so that the grace period is not spent waiting;
 * but not after one short connection upon the other, because a client that is welcomed and thrown out again and
 * again would never slow down. A time that the server named is never shortened: that of a `goodbye` is obeyed to the
 * millisecond, because the server has spread these; to a `retry_after_ms` the backoff is added as jitter.
 */
export class ReconnectPlan {
  #backoff;
  #welcomedAt = null;
  #shortConnections = 0;
  #goodbyeAt = null;
  #failedAt = -Infinity;
  #named = false;

  constructor(backoff) {
    this.#backoff = backoff;
  }

  /** The server named the moment to come back. */
  goodbye(at) {
    this.#goodbyeAt = at;
  }

  welcomed(now) {
    this.#welcomedAt = now;
    this.#goodbyeAt = null;
  }

  /** How long to wait after a connection or an attempt has ended at `now`. */
  delay(now, retryAfterMs) {
    if (this.#welcomedAt !== null) this.#judge(now - this.#welcomedAt >= STABLE_AFTER_MS);
    else this.#failedAt = now;
    this.#welcomedAt = null;
    const goodbyeAt = this.#goodbyeAt;
    this.#goodbyeAt = null;
    this.#named = goodbyeAt !== null || retryAfterMs !== undefined;
    if (goodbyeAt !== null && retryAfterMs === undefined) return Math.max(0, goodbyeAt - now);
    return (retryAfterMs ?? 0) + this.#backoff.next();
  }

  /** Whether the wait may be cut short because the network or the user is back. Not in a loop of refusals. */
  mayHurry(now) {
    return !this.#named && now - this.#failedAt >= this.#backoff.baseMs;
  }

  #judge(stable) {
    this.#shortConnections = stable ? 0 : this.#shortConnections + 1;
    if (this.#shortConnections <= MAX_SHORT_CONNECTIONS) this.#backoff.reset();
  }
}

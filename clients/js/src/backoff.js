const STABLE_AFTER_MS = 5_000;
const MAX_SHORT_CONNECTIONS = 3;

/** Exponential backoff with full jitter: a random delay below a ceiling that doubles up to a cap. */
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
 * When a client reconnects. A welcome resets the backoff, so that the grace period is not spent waiting. Several short
 * connections in a row do not: otherwise a client that is welcomed and disconnected in a loop would never slow down. A
 * time that the server sent is never shortened. That of a `goodbye` is obeyed exactly, because the server has spread
 * these out; to a `retry_after_ms` the backoff is added as jitter.
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

  /** The server said when to reconnect. */
  goodbye(at) {
    this.#goodbyeAt = at;
  }

  welcomed(now) {
    this.#welcomedAt = now;
    this.#goodbyeAt = null;
  }

  /** How long to wait after a connection or an attempt ended at `now`. */
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

  /** Whether the wait may be cut short when the network or the user is back. Not if the node keeps refusing. */
  mayHurry(now) {
    return !this.#named && now - this.#failedAt >= this.#backoff.baseMs;
  }

  #judge(stable) {
    this.#shortConnections = stable ? 0 : this.#shortConnections + 1;
    if (this.#shortConnections <= MAX_SHORT_CONNECTIONS) this.#backoff.reset();
  }
}

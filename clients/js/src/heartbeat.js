const DEFAULT_PATIENCE_MS = 5_000;
const ASLEEP_MS = 2_000;

/**
 * Detects half-open connections, whose network is gone without a close. JavaScript cannot see WebSocket pings. So after
 * a period of silence, or at once on suspicion, this sends a request. If nothing at all arrives for the same period
 * again, the connection is dead. The server sets the period, because a busy server should not lose impatient clients.
 */
export class Heartbeat {
  #environment;
  #ask;
  #onDeath;
  #patienceMs = DEFAULT_PATIENCE_MS;
  #heard = 0;
  #heardAt;
  #silenceTimer = null;
  #proofTimer = null;

  /**
   * @param {object} environment
   * @param {() => boolean} ask sends a request that the server answers; false if it has none
   * @param {() => void} onDeath
   */
  constructor(environment, ask, onDeath) {
    this.#environment = environment;
    this.#ask = ask;
    this.#onDeath = onDeath;
    this.#heardAt = environment.now();
  }

  heard() {
    this.#heard += 1;
    this.#heardAt = this.#environment.now();
  }

  /** Sends a request after every `silenceMs` of silence. */
  watch(silenceMs) {
    this.#patienceMs = silenceMs;
    const { now, setTimeout } = this.#environment;
    const rest = this.#heardAt + silenceMs - now();
    if (rest <= 0) this.suspect();
    this.#silenceTimer = setTimeout(() => this.watch(silenceMs), rest > 0 ? rest : silenceMs);
  }

  /** Sends a request now, unless one is pending. */
  suspect() {
    const { now, setTimeout } = this.#environment;
    const [heard, due] = [this.#heard, now() + this.#patienceMs];
    if (this.#proofTimer !== null || !this.#ask()) return;
    this.#proofTimer = setTimeout(() => this.#judge(heard, now() - due), this.#patienceMs);
  }

  stop() {
    this.#environment.clearTimeout(this.#silenceTimer);
    this.#environment.clearTimeout(this.#proofTimer);
  }

  #judge(heardBefore, lateMs) {
    this.#proofTimer = null;
    if (this.#heard !== heardBefore) return;
    // After sleep, a computer runs its timers before it reads received data.
    if (lateMs > ASLEEP_MS) this.suspect();
    else this.#onDeath();
  }
}

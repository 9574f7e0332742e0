const DEFAULT_PATIENCE_MS = 5_000;
const ASLEEP_MS = 2_000;

/**
 * Notices that a connection is half-open: its network has gone and nobody said so. The pings of WebSocket are
 * invisible to JavaScript, so after a time of silence, or at once upon suspicion, a question is asked; when nothing at
 * all is heard for the same time again, the connection is dead. The server names that time, because a server that is
 * busy should not lose its clients to impatience.
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
   * @param {() => boolean} ask sends what the server answers; false when there is nothing to ask
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

  /** Asks whenever nothing was heard for so long. */
  watch(silenceMs) {
    this.#patienceMs = silenceMs;
    const { now, setTimeout } = this.#environment;
    const rest = this.#heardAt + silenceMs - now();
    if (rest <= 0) this.suspect();
    this.#silenceTimer = setTimeout(() => this.watch(silenceMs), rest > 0 ? rest : silenceMs);
  }

  /** Asks now, unless it is being asked. */
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
    // A computer that slept runs its timers before it reads what came.
    if (lateMs > ASLEEP_MS) this.suspect();
    else this.#onDeath();
  }
}

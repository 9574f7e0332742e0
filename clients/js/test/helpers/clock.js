/** A clock that moves only when a test says so. */
export class FakeClock {
  #now = 0;
  #lastId = 0;
  #timers = new Map();

  now = () => this.#now;

  setTimeout = (callback, ms) => {
    const id = ++this.#lastId;
    this.#timers.set(id, { callback, due: this.#now + ms });
    return id;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  /** How long until each pending timer fires, soonest first. */
  get pending() {
    return [...this.#timers.values()].map(({ due }) => due - this.#now).sort((a, b) => a - b);
  }

  /** Lets `ms` pass, firing what falls due in order, and lets everything that follows happen. */
  async advance(ms) {
    const end = this.#now + ms;
    for (let next = this.#nextBefore(end); next; next = this.#nextBefore(end)) {
      const [id, { callback, due }] = next;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, due);
      callback();
      await settle();
    }
    this.#now = end;
    await settle();
  }

  /** Time passes and nothing fires before the next `advance`: a computer that sleeps. */
  sleep(ms) {
    this.#now += ms;
  }

  #nextBefore(end) {
    const due = [...this.#timers].filter(([, timer]) => timer.due <= end);
    return due.sort(([, a], [, b]) => a.due - b.due)[0];
  }
}

/** Lets all promises that can settle do so: a few turns of the event loop, no time. */
export async function settle() {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

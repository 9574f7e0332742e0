const MAX_KNOWN = 1_000; // as many as a room keeps

/** The chat messages of a room that are known already: they arrive as history, as answers and as events. */
export class KnownMessages {
  #seqs = new Set();

  /** Remembers a message. Returns whether it is new. */
  add({ seq }) {
    if (this.#seqs.has(seq)) return false;
    this.#seqs.add(seq);
    const [oldest] = this.#seqs;
    if (this.#seqs.size > MAX_KNOWN) this.#seqs.delete(oldest);
    return true;
  }
}

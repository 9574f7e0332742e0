const MAX_KNOWN = 1_000; // As many as a room keeps.

/** The chat messages of a room that were told: they come as history, as answers and as events. */
export class KnownMessages {
  #seqs = new Set();

  /** Whether the message is one that was not known. */
  add({ seq }) {
    if (this.#seqs.has(seq)) return false;
    this.#seqs.add(seq);
    const [oldest] = this.#seqs;
    if (this.#seqs.size > MAX_KNOWN) this.#seqs.delete(oldest);
    return true;
  }
}

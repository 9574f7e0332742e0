/** How far ahead a signal may be. Larger than the sender's window, which notes and the negotiation bypass. */
const WINDOW = 128;
const ACK_DELAY_MS = 50;
const ACK_EVERY = 16;
const MAX_PAST = 8;

/** The receiving end of a call's signals: order, duplicates and acknowledgements of the peer's stream. */
export class Incoming {
  /** The peer's instance and current stream; null before anything has arrived. */
  instance = null;
  stream = null;
  duplicates = 0;
  #epoch = 0;
  #position = 0;
  #early = new Map();
  #unacked = 0;
  #ackAt = 0;
  #past = new Map();
  #retired = new Set();

  /** Whether signals of `instance` are accepted. Not if another instance has replaced it. */
  hears(instance) {
    return !this.#retired.has(instance);
  }

  /** The peer is `instance` from now on. An instance that is known already continues where it was. */
  follow(instance) {
    if (this.instance !== null) this.#retire(this.instance);
    this.instance = instance;
    [this.#epoch, this.#position] = this.#past.get(instance) ?? [0, 0];
    this.#past.delete(instance);
    this.#early.clear();
    this.#unacked = 0;
  }

  #retire(instance) {
    this.#past.set(instance, [this.#epoch, this.#position]);
    this.#retired.add(instance);
    const [oldest] = this.#past.keys();
    if (this.#past.size <= MAX_PAST) return;
    this.#past.delete(oldest);
    this.#retired.delete(oldest);
  }

  /** The peer's side reconnected, possibly from an instance that was followed earlier. */
  hearRetired() {
    this.#retired.clear();
  }

  /** Processes a signal of a reliable stream. Returns the signals that can be delivered now, in order. */
  take(stream, epoch, n, data, now) {
    if (epoch < this.#epoch) return [];
    if (epoch > this.#epoch) this.#begin(epoch);
    this.stream = stream;
    if (!this.#unacked) this.#ackAt = now + ACK_DELAY_MS;
    this.#unacked += 1;
    const isKnown = n <= this.#position || this.#early.has(n);
    this.duplicates += isKnown;
    if (isKnown || n > this.#position + WINDOW) return [];
    this.#early.set(n, data);
    return [...this.#inOrder()];
  }

  /** Processes a signal of a plain stream, which is never retransmitted. Returns whether it is new. */
  takePlain(stream, n) {
    this.stream = stream;
    const isNew = n > this.#position;
    if (isNew) this.#position = n;
    else this.duplicates += 1;
    return isNew;
  }

  /** When an acknowledgement is due; null if none is. */
  get ackAt() {
    if (!this.#unacked || !this.#position) return null;
    return this.#unacked < ACK_EVERY ? this.#ackAt : 0;
  }

  /** The acknowledgement: the stream, and the number up to which everything has arrived. */
  takeAck() {
    this.#unacked = 0;
    return { stream: this.stream, n: this.#position };
  }

  #begin(epoch) {
    this.#epoch = epoch;
    this.#position = this.#unacked = 0;
    this.#early.clear();
  }

  *#inOrder() {
    while (this.#early.has(this.#position + 1)) {
      this.#position += 1;
      yield this.#early.get(this.#position);
      this.#early.delete(this.#position);
    }
  }
}

/** How far ahead of what has come a signal may be: notes and the negotiation do not wait for room in the window. */
const WINDOW = 128;
const ACK_DELAY_MS = 50;
const ACK_EVERY = 16;
const MAX_PAST = 8;

/** The receiver's end of a call's signals: what has come of the peer's stream, and what is to be acknowledged. */
export class Incoming {
  /** The peer's instance, and its stream as it was last named; null before anything has come. */
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

  /** Whether an instance is listened to: not one that another has replaced. */
  hears(instance) {
    return !this.#retired.has(instance);
  }

  /** The peer is this instance from now on. One that was heard before goes on where it was. */
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

  /** The peer's side was taken back, perhaps by an instance that was followed before. */
  hearRetired() {
    this.#retired.clear();
  }

  /** Takes a signal of a reliable stream: what can be delivered now, in order. */
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

  /** Takes a signal of a stream that nobody repeats: whether it is new. */
  takePlain(stream, n) {
    this.stream = stream;
    const isNew = n > this.#position;
    if (isNew) this.#position = n;
    else this.duplicates += 1;
    return isNew;
  }

  /** When an acknowledgement is due; null for never. */
  get ackAt() {
    if (!this.#unacked || !this.#position) return null;
    return this.#unacked < ACK_EVERY ? this.#ackAt : 0;
  }

  /** The stream, and up to where all of it has come. */
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

const MAX_OUT_OF_ORDER = 256;
const MAX_RETIRED_STREAMS = 8;

/**
 * Numbers outgoing signals and judges incoming ones; everything about delivery that outlives one connection.
 *
 * `stream` names this instance of the SDK in this room: a reloaded page has another one, and that is how the peer
 * learns that its RTCPeerConnection talks to somebody who is gone. `n` counts 1, 2, 3 … within the stream.
 */
export class Delivery {
  #sent = 0;
  #inOrder = 0;
  #outOfOrder = new Set();
  #retired = [];

  constructor(stream) {
    this.stream = stream;
    this.peerStream = null;
  }

  /** What names the next signal of our stream. */
  number() {
    return { stream: this.stream, n: ++this.#sent };
  }

  /**
   * What to do with a signal: `deliver` it, `drop` it as seen before, or deliver it knowing that the peer's
   * instance `changed`. Clients without an SDK send neither `stream` nor `n`; what they send is delivered.
   */
  accept({ stream, n }) {
    if (stream === undefined) return "deliver";
    if (this.#retired.includes(stream)) return "drop";
    const changed = this.peerStream !== null && stream !== this.peerStream;
    if (stream !== this.peerStream) this.#follow(stream);
    if (n !== undefined && this.#seen(n)) return "drop";
    return changed ? "changed" : "deliver";
  }

  /** The peer's side was taken over: perhaps by a device that was followed before, and is to be heard again. */
  forgetRetired() {
    this.#retired.length = 0;
  }

  #follow(stream) {
    if (this.peerStream !== null) this.#retired.push(this.peerStream);
    if (this.#retired.length > MAX_RETIRED_STREAMS) this.#retired.shift();
    this.peerStream = stream;
    this.#inOrder = 0;
    this.#outOfOrder.clear();
  }

  #seen(n) {
    if (n <= this.#inOrder || this.#outOfOrder.has(n)) return true;
    this.#outOfOrder.add(n);
    // What was lost never fills its gap: beyond the limit the oldest gap is given up.
    if (this.#outOfOrder.size > MAX_OUT_OF_ORDER) this.#inOrder = Math.min(...this.#outOfOrder) - 1;
    while (this.#outOfOrder.delete(this.#inOrder + 1)) this.#inOrder += 1;
    return false;
  }
}

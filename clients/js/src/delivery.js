/**
 * Reliable signals between two SDKs: numbers, acknowledgements, retransmission, order. No I/O; time is an argument.
 *
 * docs/delivery.md describes the state machine. keepline/client/delivery.py implements the same one and has its theory
 * of operation; both run tests/vectors/delivery/. The caller fetches outgoing frames from `next`, one at a time: after
 * every event, and at `wakeAt`.
 */
import { utf8Length } from "./frames.js";
import { Incoming } from "./incoming.js";
import { Outbox } from "./outbox.js";
import { RetransmissionTimeout } from "./retransmission_timeout.js";

const WINDOW_BYTES = 512 * 1024;
const WINDOW = 64;
const MEDIA_WINDOW = 112; // the negotiation does not wait for the app
/** Waits for the reply to a presence note before it is retransmitted. After the last wait the peer counts as plain. */
const PROBES_MS = [1_000, 2_000, 4_000];

const STREAM = /^r1\.([^.]+)\.(\d{1,9})$/;

export class Delivery {
  kind = "unknown";
  incoming = new Incoming();
  resent = 0;
  frameBytes = 65_536;
  #room;
  #instance;
  #onOutdated;
  #epoch = 1;
  #last = 0;
  #outbox;
  #unacked = []; // in the order of `n`, without gaps
  #unackedBytes = 0;
  #resend = [];
  #noteDue = false;
  #flows = false;
  #heard = true; // from the peer since it returned; until then new signals wait, for its page may have been reloaded
  #heldUntil = 0;
  #timeout = new RetransmissionTimeout();
  #timer = null;
  #repeatsTo = 0; // after a timeout: retransmit up to here, once the oldest signal has been acknowledged
  #probes = 0;

  /**
   * @param {string} room
   * @param {string} instance random
   * @param {Outbox} [outbox] the queue of unsent signals
   * @param {() => void} [onOutdated] the peer has since talked to another of our user's devices
   */
  constructor(room, instance, outbox = new Outbox(), onOutdated = () => {}) {
    this.#room = room;
    this.#instance = instance;
    this.#outbox = outbox;
    this.#onOutdated = onOutdated;
  }

  // --- what the app and the room say ---

  /** The name of our current stream to the peer. */
  get stream() {
    return `r1.${this.#instance}.${this.#epoch}`;
  }

  /** Whether both sides are present. */
  get flows() {
    return this.#flows;
  }

  /** Whether a stream belongs to this instance. */
  isOurs(stream) {
    return typeof stream === "string" && stream.startsWith(`r1.${this.#instance}.`);
  }

  /** Queues a signal, given as JSON. Calls `settle` with null once the peer has it. Throws `queue_full`. */
  push(text, settle = () => {}, { media = false } = {}) {
    this.#outbox.push({ text, settle }, media);
  }

  /** Drops unsent signals about an RTCPeerConnection that is gone. */
  dropMedia() {
    this.#outbox.dropMedia();
  }

  /** Both sides are present (again): retransmit what may have been lost in flight. */
  flow(now) {
    this.#flows = this.#noteDue = true;
    this.#probes = 0;
    this.#heldUntil = 0;
    this.#timeout.progressed();
    this.#timer = null;
    if (this.kind !== "reliable") return;
    this.#heard = false;
    this.#sendAgain(now);
  }

  /** One side is away: everything waits. */
  pause() {
    this.#flows = false;
  }

  /** The peer reads too slowly: send nothing before `until`. */
  hold(until) {
    this.#heldUntil = until;
  }

  /** The peer left deliberately: the next one is another instance. */
  peerLeft() {
    this.#startOver();
    this.kind = "unknown";
  }

  /** The call is over: no waiting signal will arrive. */
  fail(code) {
    this.#flows = false;
    this.#giveUp(code);
    while (!this.#outbox.isEmpty) this.#outbox.shift().settle(code);
  }

  // --- what comes in ---

  /** Processes a signal. Returns the data for the app, in order, and whether the peer is a new instance. */
  receive({ stream, n, data }, now) {
    if (stream === undefined || n === undefined) {
      this.#isPlain();
      return { data: this.#withoutNotes([data]), changed: false };
    }
    const named = STREAM.exec(stream);
    const instance = named ? named[1] : stream;
    if (!this.incoming.hears(instance)) return { data: [], changed: false };
    let changed = false;
    if (instance !== this.incoming.instance) {
      changed = this.incoming.instance !== null;
      if (changed) this.#startOver();
      this.incoming.follow(instance);
      this.#noteDue ||= named !== null;
    }
    this.#heard = true;
    if (named) {
      this.#isReliable(now);
      return { data: this.#withoutNotes(this.incoming.take(stream, Number(named[2]), n, data, now)), changed };
    }
    this.#isPlain();
    return { data: this.#withoutNotes(this.incoming.takePlain(stream, n) ? [data] : []), changed };
  }

  /** The peer has received everything up to `n` of one of our streams. */
  acknowledged({ stream, n }, now) {
    if (stream !== this.stream || n > this.#last) return;
    this.#isReliable(now);
    this.#heard = true;
    if (!this.#unacked.length || n < this.#unacked[0].n) return;
    while (this.#unacked.length && this.#unacked[0].n <= n) {
      const sent = this.#unacked.shift();
      this.#unackedBytes -= sent.text.length;
      if (sent.times === 1) this.#timeout.measured(now - sent.sentAt);
      sent.settle(null);
    }
    this.#timeout.progressed();
    this.#timer = this.#unacked.length ? now + this.#timeout.ms : null;
    this.#resend = this.#unacked.map((sent) => sent.n).filter((each) => each <= this.#repeatsTo);
    this.#repeatsTo = 0;
  }

  // --- what goes out ---

  /** The text of the frame to write now; null if there is none before `wakeAt`. */
  next(now) {
    if (!this.#flows || now < this.#heldUntil) return null;
    this.#heldUntil = 0;
    const { ackAt } = this.incoming;
    if (ackAt !== null && ackAt <= now && this.kind === "reliable") {
      return JSON.stringify({ type: "ack", room: this.#room, ...this.incoming.takeAck() });
    }
    this.#lookAtTheTimer(now);
    const again = this.#nextAgain(now);
    if (again !== null) return again;
    if (this.#noteDue) {
      this.#noteDue = false;
      return this.#send({ text: this.#note, settle: () => {}, isNote: true }, now);
    }
    return this.#canSend ? this.#send(this.#outbox.shift(), now) : null;
  }

  /** Whether `next` has a frame now. */
  isDue(now) {
    if (!this.#flows || now < this.#heldUntil) return false;
    const wakeAt = this.wakeAt();
    if (wakeAt !== null && wakeAt <= now) return true;
    return this.#resend.length > 0 || this.#noteDue || this.#canSend;
  }

  /** When to call `next` even if nothing happens; null for never. */
  wakeAt() {
    if (!this.#flows) return null;
    const times = [this.#timer, this.kind === "reliable" ? this.incoming.ackAt : null].filter((at) => at !== null);
    if (!times.length) return this.#heldUntil || null;
    return Math.max(this.#heldUntil, Math.min(...times));
  }

  // --- inside ---

  get #note() {
    return JSON.stringify({ here: this.incoming.stream });
  }

  get #canSend() {
    if (this.#outbox.isEmpty || !this.#heard) return false;
    if (!this.#unacked.length) return true;
    const isMedia = this.#outbox.hasMedia;
    return this.#unacked.length < (isMedia ? MEDIA_WINDOW : WINDOW) && (isMedia || this.#unackedBytes < WINDOW_BYTES);
  }

  #send(signal, now) {
    const sent = { ...signal, n: ++this.#last, sentAt: now, times: 1 };
    if (this.kind === "plain") {
      const text = this.#written(sent);
      sent.settle(null);
      return text;
    }
    this.#unacked.push(sent);
    this.#unackedBytes += sent.text.length;
    if (this.#timer === null) this.#setTimer(now);
    return this.#written(sent);
  }

  #setTimer(now) {
    if (this.kind === "reliable") this.#timer = now + this.#timeout.ms;
    else if (this.kind === "unknown") this.#timer = now + PROBES_MS[this.#probes];
  }

  #written(sent) {
    const frame = JSON.stringify({ type: "signal", room: this.#room, stream: this.stream, n: sent.n });
    const written = `${frame.slice(0, -1)},"data":${sent.text}}`;
    if (sent.isNote || utf8Length(written, this.frameBytes) <= this.frameBytes) return written;
    // The previous node had a higher limit. The number is used already, so a note takes the signal's place.
    sent.settle("too_large");
    const text = this.#note;
    if (this.#unacked.includes(sent)) this.#unackedBytes += text.length - sent.text.length;
    Object.assign(sent, { text, settle: () => {}, isNote: true });
    return this.#written(sent);
  }

  #nextAgain(now) {
    while (this.#resend.length) {
      const n = this.#resend.shift();
      const sent = this.#unacked.length ? this.#unacked[n - this.#unacked[0].n] : undefined;
      if (!sent) continue;
      sent.times += 1;
      sent.sentAt = now;
      this.resent += 1;
      return this.#written(sent);
    }
    return null;
  }

  #sendAgain(now) {
    this.#resend = this.#unacked.map(({ n }) => n);
    this.#repeatsTo = 0;
    this.#timer = this.#unacked.length ? now + this.#timeout.ms : null;
  }

  #lookAtTheTimer(now) {
    if (this.#timer === null || now < this.#timer) return;
    if (this.kind === "reliable") {
      this.#timeout.passed();
      this.#timer = now + this.#timeout.ms;
      this.#resend = [this.#unacked[0].n];
      this.#repeatsTo = this.#last;
      return;
    }
    this.#probes += 1;
    if (this.#probes === PROBES_MS.length) return this.#isPlain();
    this.#setTimer(now);
    const note = this.#unacked.findLast(({ isNote }) => isNote);
    this.#resend = note ? [note.n] : [];
  }

  #isReliable(now) {
    if (this.kind === "reliable") return;
    if (this.kind === "plain") this.#startEpoch(); // signals sent to a plain peer were not kept
    this.kind = "reliable";
    this.#timer = null;
    if (this.#unacked.length) this.#setTimer(now);
  }

  #isPlain() {
    if (this.kind === "plain") return;
    this.kind = "plain";
    this.#giveUp(null);
  }

  /** The peer is a new instance: signals in flight to the old one are lost, and numbers start at 1 again. */
  #startOver() {
    this.#giveUp("peer_gone");
    this.#heard = true;
    if (this.kind !== "plain") this.#startEpoch();
  }

  #startEpoch() {
    if (!this.#last) return;
    this.#epoch += 1;
    this.#last = 0;
  }

  #giveUp(code) {
    const given = this.#unacked;
    this.#unacked = [];
    this.#unackedBytes = 0;
    this.#resend = [];
    this.#repeatsTo = 0;
    this.#timer = null;
    for (const { settle } of given) settle(code);
  }

  /** Processes presence notes, and returns the other signals. */
  #withoutNotes(signals) {
    return signals.filter((data) => {
      const isNote = typeof data === "object" && data !== null && !Array.isArray(data) && "here" in data;
      if (isNote) this.#noteRead(data.here);
      return !isNote;
    });
  }

  /** The peer names the stream it follows. If it is another instance, the peer has since talked to another device. */
  #noteRead(here) {
    if (this.isOurs(here)) return;
    if (here !== null) this.#onOutdated();
    this.#noteDue ||= here !== null || this.kind === "plain";
  }
}

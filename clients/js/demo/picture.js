/** What the browser's own figures say of the other side's picture: whether it moves, and how good it is. */

const READ_MS = 500;
const STILL_MS = 1_500;
const KEPT_MS = 60_000;
const SETTLED_MS = 1_200; // a freeze is known only once it is over

export class PictureWatch {
  #call;
  #onReading;
  #timer;
  #readings = []; // of the last minute, oldest first
  #movedAt = -Infinity;

  /** Reads the figures of a call twice a second and tells `onReading`, until `close`. */
  constructor(call, onReading) {
    this.#call = call;
    this.#onReading = onReading;
    this.#timer = setInterval(() => this.read(), READ_MS);
  }

  close() {
    clearInterval(this.#timer);
  }

  /** Whether frames have arrived just now. */
  get flows() {
    return performance.now() - this.#movedAt < STILL_MS;
  }

  /** What the picture did during the `ms` that end now; null where there was none. */
  async during(ms) {
    const began = performance.now() - ms;
    const now = await this.read();
    const before = this.#readings.findLast(({ at }) => at <= began) ?? this.#readings[0];
    if (!before?.frames) return null;
    await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    const later = await this.read();
    const frames = now.frames - before.frames;
    return { frames, overMs: now.at - before.at, frozenMs: frames > 0 ? later.frozenMs - before.frozenMs : ms };
  }

  /** The figures as they are now. */
  async read() {
    const last = this.#readings.at(-1);
    const stats = await this.#call.peerConnection?.getStats().catch(() => null);
    const reading = { at: performance.now(), ...summarize([...(stats?.values() ?? [])], last) };
    if (reading.frames > (last?.frames ?? 0)) this.#movedAt = reading.at;
    if (reading.frames < (last?.frames ?? 0)) this.#readings = []; // another connection counts from zero
    this.#readings.push(reading);
    while (this.#readings[0].at < reading.at - KEPT_MS) this.#readings.shift();
    this.#onReading(reading);
    return reading;
  }
}

function summarize(reports, last) {
  const video = reports.find(({ type, kind }) => type === "inbound-rtp" && kind === "video") ?? {};
  const pair = reports.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
  const received = video.packetsReceived ?? 0;
  const lost = Math.max(0, (video.packetsLost ?? 0) - (last?.packetsLost ?? 0));
  const all = lost + received - (last?.received ?? 0);
  return {
    frames: video.framesDecoded ?? 0,
    frozenMs: (video.totalFreezesDuration ?? 0) * 1_000,
    width: video.frameWidth,
    height: video.frameHeight,
    fps: video.framesPerSecond,
    rttMs: pair?.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1_000,
    lost: all > 0 ? lost / all : 0,
    packetsLost: video.packetsLost ?? 0,
    received,
  };
}

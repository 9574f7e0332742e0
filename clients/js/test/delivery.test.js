import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { Delivery } from "../src/delivery.js";
import { Outbox } from "../src/outbox.js";

const VECTORS = new URL("../../../tests/vectors/delivery/", import.meta.url);
const EVENTS = ["flow", "pause", "push", "signal", "ack", "peer_left", "hold", "fail", "tick"];

/** One side, as the vectors speak of it; keepline.client's tests run the same files. */
class Runner {
  #settled = {};
  #outdated = false;
  #delivery = new Delivery("r", "me", undefined, () => (this.#outdated = true));

  step(step) {
    const { at: now } = step;
    this.#settled = {};
    this.#outdated = false;
    const event = EVENTS.find((name) => name in step);
    const { data: delivers = [], changed = false } = this.#happen(event, step[event], now) ?? {};
    const writes = [];
    for (let text; (text = this.#delivery.next(now)) !== null; ) writes.push(short(JSON.parse(text)));
    return { writes, delivers, changed, settles: this.#settled, outdated: this.#outdated, wakes: this.#delivery.wakeAt() };
  }

  #happen(event, what, now) {
    const settle = (code) => (this.#settled[what.ticket] = code);
    switch (event) {
      case "flow":
        return this.#delivery.flow(now);
      case "pause":
        return this.#delivery.pause();
      case "push":
        return this.#delivery.push(JSON.stringify(what.data), settle);
      case "signal":
        return this.#delivery.receive(what, now);
      case "ack":
        return this.#delivery.acknowledged(what, now);
      case "peer_left":
        return this.#delivery.peerLeft();
      case "hold":
        return this.#delivery.hold(what);
      case "fail":
        return this.#delivery.fail(what);
    }
  }
}

function short({ type, room, stream, n, data }) {
  assert.equal(room, "r");
  return type === "signal" ? [type, stream, n, data] : [type, stream, n];
}

for (const file of readdirSync(VECTORS).filter((name) => name.endsWith(".json"))) {
  const { title, steps } = JSON.parse(readFileSync(new URL(file, VECTORS)));
  test(`${file}: ${title}`, () => {
    const runner = new Runner();
    const usual = { writes: [], delivers: [], changed: false, settles: {}, outdated: false };
    for (const [number, step] of steps.entries()) {
      const found = runner.step(step);
      const expected = { ...usual, wakes: found.wakes };
      for (const name of Object.keys(expected)) if (name in step) expected[name] = step[name];
      assert.deepEqual(found, expected, `step ${number}: ${JSON.stringify(step)}`);
    }
  });
}

/** Pseudo-random numbers from a seed (mulberry32). */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const LAST_FAULT_MS = 20_000;

/** Two sides over a cluster that loses, doubles, reorders and breaks, on a clock of its own. */
class Channel {
  now = 0;
  #queue = [];
  #random;
  #rates;

  constructor(random) {
    this.#random = random;
    const rate = () => [0, 0.05, 0.3][Math.floor(random() * 3)];
    this.#rates = [rate(), rate(), rate()];
    this.sides = ["a", "b"].map((name) => ({ delivery: new Delivery("r", name), sent: 0, settled: [], got: [], at: 0 }));
  }

  later(at, work, isFrame = false) {
    this.#queue.push({ at, work, isFrame });
    this.#queue.sort((one, other) => one.at - other.at);
  }

  flow() {
    for (const side of this.sides) side.delivery.flow(this.now);
    for (const number of [0, 1]) this.#pump(number);
  }

  /** A connection dies with what is on its way; both know, and meet again. */
  cut(ms) {
    for (const { delivery } of this.sides) delivery.pause();
    this.#queue = this.#queue.filter(({ isFrame }) => !isFrame);
    this.later(this.now + ms, () => this.flow());
  }

  send(number) {
    const side = this.sides[number];
    side.delivery.push(String(++side.sent), (code) => side.settled.push(code));
    this.#pump(number);
  }

  run(until) {
    while (this.#queue.length && this.#queue[0].at <= until) {
      const { at, work } = this.#queue.shift();
      this.now = at;
      work();
    }
  }

  #arrive(number, frame) {
    const { delivery, got } = this.sides[number];
    if (frame.type === "ack") delivery.acknowledged(frame, this.now);
    else got.push(...delivery.receive(frame, this.now).data);
    this.#pump(number);
  }

  #pump(number) {
    const { delivery } = this.sides[number];
    for (let text; (text = delivery.next(this.now)) !== null; ) this.#transmit(1 - number, JSON.parse(text));
    const wakeAt = delivery.wakeAt();
    if (wakeAt !== null) this.later(Math.max(wakeAt, this.now), () => delivery.wakeAt() <= this.now && this.#pump(number));
  }

  #transmit(to, frame) {
    const [loss, doubling, reordering] = this.now < LAST_FAULT_MS ? this.#rates : [0, 0, 0];
    const copies = this.#random() < loss ? 0 : 1 + (this.#random() < doubling);
    for (let copy = 0; copy < copies; copy += 1) {
      let at = this.now + 1 + 39 * this.#random();
      if (this.#random() >= reordering) at = this.sides[to].at = Math.max(at, this.sides[to].at);
      this.later(at, () => this.#arrive(to, frame), true);
    }
  }
}

for (let seed = 1; seed <= 40; seed += 1) {
  test(`seed ${seed}: over a lossy channel everything arrives once and in order`, () => {
    const random = seeded(seed);
    const channel = new Channel(random);
    channel.flow();
    for (let count = 50 + random() * 150; count > 0; count -= 1) {
      const number = Math.floor(random() * 2);
      channel.later(random() * LAST_FAULT_MS, () => channel.send(number));
    }
    for (let cuts = 0; cuts < 6; cuts += 1) {
      const ms = random() * 3_000;
      channel.later(random() * LAST_FAULT_MS, () => channel.cut(ms));
    }
    channel.later(LAST_FAULT_MS + 3_500, () => channel.flow());
    channel.run(120_000);
    for (const [number, { sent, settled }] of channel.sides.entries()) {
      assert.deepEqual(channel.sides[1 - number].got, Array.from({ length: sent }, (_, index) => index + 1));
      assert.deepEqual(settled, Array(sent).fill(null));
    }
  });
}

test("what waits is limited, and the negotiation has an allowance of its own", () => {
  const outbox = new Outbox();
  const signal = (text) => ({ text, settle: () => {} });
  for (let count = 0; count < 256; count += 1) outbox.push(signal("app"), false);
  assert.throws(() => outbox.push(signal("app"), false), { code: "queue_full" });
  outbox.push(signal("media"), true);
  assert.equal(outbox.shift().text, "media");
  outbox.push(signal("media"), true);
  outbox.dropMedia();
  assert.equal(outbox.shift().text, "app");
  assert.throws(() => new Outbox().push(signal("x".repeat(1024 * 1024 + 1)), false), { code: "queue_full" });
});

test("a signal that another node took is replaced when this one does not", () => {
  const delivery = new Delivery("r", "me");
  const outcomes = [];
  delivery.flow(0);
  while (delivery.next(0) !== null);
  delivery.receive({ stream: "r1.peer.1", n: 1, data: { here: "r1.me.1" } }, 0);
  while (delivery.next(0) !== null);
  delivery.push(JSON.stringify("ä".repeat(500)), (code) => outcomes.push(code));
  delivery.push('"next"', (code) => outcomes.push(code));
  delivery.frameBytes = 600;
  const frames = [delivery.next(0), delivery.next(0)].map((text) => JSON.parse(text));
  assert.deepEqual(outcomes, ["too_large"]);
  assert.deepEqual(frames.map(({ n, data }) => [n, data]), [[3, { here: "r1.peer.1" }], [4, "next"]]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff, ReconnectPlan } from "../src/backoff.js";
import { CLOSES, nextStep } from "../src/errors.js";

test("the ceiling doubles up to the cap", () => {
  const backoff = new Backoff({ baseMs: 250, capMs: 10_000 }, () => 1);
  assert.deepEqual(Array.from({ length: 7 }, () => backoff.next()), [250, 500, 1000, 2000, 4000, 8000, 10000]);
});

test("jitter is full: any time from now on", () => {
  const randoms = [0, 0.5, 0.999];
  const backoff = new Backoff({ baseMs: 100, capMs: 1_000 }, () => randoms.shift());
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [0, 100, 399.6]);
});

test("reset starts over, and a thousand failures do not overflow", () => {
  const backoff = new Backoff({ baseMs: 250, capMs: 10_000 }, () => 1);
  for (let attempt = 0; attempt < 2_000; attempt += 1) backoff.next();
  assert.equal(backoff.next(), 10_000);
  backoff.reset();
  assert.equal(backoff.next(), 250);
});

test("the close table says who may come back", () => {
  const next = Object.fromEntries([...CLOSES].map(([number, code]) => [number, nextStep({ code })]));
  assert.deepEqual(next, {
    4400: "stop",
    4401: "fresh_token",
    4403: "stop",
    4408: "retry",
    4409: "stop",
    4413: "stop",
    4429: "retry",
    4503: "retry",
    4508: "retry",
  });
});

const plan = () => new ReconnectPlan(new Backoff({ baseMs: 250, capMs: 10_000 }, () => 1));

test("a short connection does not eat the grace period, one upon the other slows down", () => {
  const it = plan();
  const waits = [];
  for (let round = 0; round < 6; round += 1) {
    it.welcomed(round * 1_000);
    waits.push(it.delay(round * 1_000 + 500));
  }
  assert.deepEqual(waits, [250, 250, 250, 500, 1000, 2000]);
  it.welcomed(10_000);
  assert.equal(it.delay(15_000), 250);
});

test("a goodbye is obeyed to the millisecond, and only once", () => {
  const it = plan();
  it.goodbye(1_000);
  assert.deepEqual([it.delay(400), it.delay(1_000)], [600, 250]);
});

test("a time that the server named gets jitter, and nobody hurries it", () => {
  const it = plan();
  assert.equal(it.delay(0, 3_000), 3_250);
  assert.equal(it.mayHurry(2_000), false);
  assert.equal(it.delay(3_250), 500);
  assert.deepEqual([it.mayHurry(3_300), it.mayHurry(3_500)], [false, true]);
});

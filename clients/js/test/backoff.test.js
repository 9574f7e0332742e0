import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff } from "../src/backoff.js";
import { CLOSES } from "../src/errors.js";

test("the ceiling doubles up to the cap", () => {
  const backoff = new Backoff({ baseMs: 250, capMs: 8_000 }, () => 1);
  assert.deepEqual(Array.from({ length: 7 }, () => backoff.next()), [250, 500, 1000, 2000, 4000, 8000, 8000]);
});

test("jitter is full: any time from now on", () => {
  const randoms = [0, 0.5, 0.999];
  const backoff = new Backoff({ baseMs: 100, capMs: 1_000 }, () => randoms.shift());
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [0, 100, 399.6]);
});

test("reset starts over, and a thousand failures do not overflow", () => {
  const backoff = new Backoff({ baseMs: 250, capMs: 8_000 }, () => 1);
  for (let attempt = 0; attempt < 2_000; attempt += 1) backoff.next();
  assert.equal(backoff.next(), 8_000);
  backoff.reset();
  assert.equal(backoff.next(), 250);
});

test("the close table says who may come back", () => {
  const next = Object.fromEntries([...CLOSES].map(([code, close]) => [code, close.next]));
  assert.deepEqual(next, {
    4400: "stop",
    4401: "fresh_token",
    4403: "stop",
    4408: "retry",
    4409: "stop",
    4413: "stop",
    4429: "retry_later",
    4503: "retry",
    4508: "retry",
  });
});

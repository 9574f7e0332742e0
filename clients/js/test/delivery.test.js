import assert from "node:assert/strict";
import { test } from "node:test";

import { Delivery } from "../src/delivery.js";

test("signals are numbered from 1 within our stream", () => {
  const delivery = new Delivery("ours");
  assert.deepEqual(delivery.number(), { stream: "ours", n: 1 });
  assert.deepEqual(delivery.number(), { stream: "ours", n: 2 });
});

test("what was seen is dropped, what came early is not", () => {
  const delivery = new Delivery("ours");
  const verdicts = [1, 3, 2, 2, 3, 1, 4].map((n) => delivery.accept({ stream: "a", n }));
  assert.deepEqual(verdicts, ["deliver", "deliver", "deliver", "drop", "drop", "drop", "deliver"]);
});

test("another stream is another instance of the peer, and the old one is heard no more", () => {
  const delivery = new Delivery("ours");
  assert.equal(delivery.peerStream, null);
  assert.equal(delivery.accept({ stream: "a", n: 1 }), "deliver");
  assert.equal(delivery.accept({ stream: "b", n: 1 }), "changed");
  assert.equal(delivery.accept({ stream: "a", n: 2 }), "drop");
  assert.equal(delivery.accept({ stream: "b", n: 2 }), "deliver");
  assert.equal(delivery.peerStream, "b");
});

test("a device that takes the peer's side back is heard again", () => {
  const delivery = new Delivery("ours");
  for (const stream of ["phone", "laptop"]) delivery.accept({ stream, n: 1 });
  assert.equal(delivery.accept({ stream: "phone", n: 2 }), "drop");
  delivery.forgetRetired();
  assert.equal(delivery.accept({ stream: "laptop", n: 2 }), "deliver");
  assert.equal(delivery.accept({ stream: "phone", n: 3 }), "changed");
  assert.equal(delivery.accept({ stream: "laptop", n: 3 }), "drop");
});

test("signals without a stream are delivered as they are", () => {
  const delivery = new Delivery("ours");
  assert.equal(delivery.accept({}), "deliver");
  assert.equal(delivery.accept({}), "deliver");
  assert.equal(delivery.peerStream, null);
});

test("gaps do not make it grow without bound, and never let a duplicate through nearby", () => {
  const delivery = new Delivery("ours");
  for (let n = 2; n < 5_000; n += 2) assert.equal(delivery.accept({ stream: "a", n }), "deliver");
  assert.equal(delivery.accept({ stream: "a", n: 4_998 }), "drop");
  assert.equal(delivery.accept({ stream: "a", n: 1 }), "drop");
  assert.equal(delivery.accept({ stream: "a", n: 4_997 }), "deliver");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { KeeplineError } from "../src/errors.js";
import { Negotiator } from "../src/negotiator.js";
import { FakeClock, settle } from "./helpers/clock.js";
import { FakePeerConnection, fakeStream } from "./helpers/peer_connection.js";

/** A negotiator with a peer that answers each offer while `answers`; `offers` counts them, `suspicions` as well. */
class Side {
  clock = new FakeClock();
  pc = new FakePeerConnection();
  answers = true;
  offers = 0;
  candidates = 0;
  suspicions = 0;
  errors = [];
  maxBytes = Infinity;

  constructor({ polite = false } = {}) {
    this.negotiator = new Negotiator(this.pc, {
      polite,
      send: (data) => this.#take(data),
      report: (cause) => this.errors.push(cause),
      suspect: () => (this.suspicions += 1),
      timers: this.clock,
    });
    this.negotiator.resume();
  }

  static async connected(options) {
    const side = new Side(options);
    side.pc.addTrack(fakeStream("video").getTracks()[0]);
    await settle();
    side.becomes("connected", "connected");
    return side;
  }

  becomes(ice, whole) {
    this.pc.setIceState(ice);
    this.pc.setConnectionState(whole);
  }

  #take({ description, candidate }) {
    if (candidate) this.candidates += 1;
    if (description && JSON.stringify(description).length > this.maxBytes) throw new KeeplineError("too_large", "no");
    if (description?.type !== "offer") return;
    this.offers += 1;
    const answer = { type: "answer", sdp: "v=0\r\na=ice-ufrag:theirs\r\na=tracks:\r\n" };
    if (this.answers) queueMicrotask(() => this.negotiator.receive({ description: answer }));
  }
}

test("a path that died is restarted, in whatever way the browser tells it", async () => {
  for (const [ice, whole] of [["disconnected", "failed"], ["failed", "failed"], ["failed", "disconnected"]]) {
    const side = await Side.connected();
    side.becomes(ice, whole);
    await settle();
    assert.equal(side.offers, 2, `${ice}, ${whole}`);
    assert.ok(side.suspicions > 0);
  }
});

test("a path that is disconnected for a moment is left alone, for longer it is restarted", async () => {
  const side = await Side.connected();
  side.becomes("disconnected", "disconnected");
  await side.clock.advance(1_900);
  side.becomes("connected", "connected");
  await side.clock.advance(60_000);
  assert.equal(side.offers, 1);
  side.becomes("disconnected", "disconnected");
  await side.clock.advance(2_000);
  assert.equal(side.offers, 2);
});

test("a path that is not found is looked for anew", async () => {
  const side = new Side();
  side.pc.addTrack(fakeStream("video").getTracks()[0]);
  await settle();
  side.pc.setIceState("checking");
  await side.clock.advance(14_999);
  assert.equal(side.offers, 1);
  await side.clock.advance(1);
  assert.equal(side.offers, 2);
});

test("a restart that brings nothing is repeated, ever more slowly, until there is a path", async () => {
  const side = await Side.connected();
  side.becomes("disconnected", "failed");
  await settle();
  side.pc.setIceState("checking");
  const offers = [];
  for (const ms of [4_999, 1, 9_999, 1, 14_999, 1, 15_000]) {
    await side.clock.advance(ms);
    offers.push(side.offers);
  }
  assert.deepEqual(offers, [2, 3, 3, 4, 4, 5, 6]);
  side.becomes("connected", "connected");
  await side.clock.advance(600_000);
  assert.deepEqual([side.offers, side.clock.pending], [6, []]);
});

test("while the peer cannot hear it nothing is restarted; then at once", async () => {
  const side = await Side.connected();
  side.negotiator.pause();
  side.becomes("disconnected", "failed");
  await side.clock.advance(60_000);
  assert.equal(side.offers, 1);
  side.negotiator.resume();
  await settle();
  assert.equal(side.offers, 2);
});

test("the polite side is a second slower", async () => {
  const side = await Side.connected({ polite: true });
  side.becomes("failed", "failed");
  await side.clock.advance(999);
  assert.equal(side.offers, 1);
  await side.clock.advance(1);
  assert.equal(side.offers, 2);
});

test("an offer without an answer is repeated, and raises suspicion", async () => {
  const side = new Side();
  side.answers = false;
  side.pc.addTrack(fakeStream("video").getTracks()[0]);
  await settle();
  await side.clock.advance(4_999);
  assert.deepEqual([side.offers, side.suspicions], [1, 0]);
  await side.clock.advance(1);
  assert.deepEqual([side.offers, side.suspicions], [2, 1]);
  side.answers = true;
  await side.clock.advance(10_000);
  assert.deepEqual([side.offers, side.pc.signalingState], [3, "stable"]);
  await side.clock.advance(600_000);
  assert.equal(side.offers, 3);
});

test("an offer that is too large is taken back and told, once; a smaller one follows", async () => {
  const side = new Side();
  side.maxBytes = 1_000;
  side.pc.bytesPerTrack = 600;
  const tracks = fakeStream("video", "audio").getTracks();
  for (const track of tracks) side.pc.addTrack(track);
  await side.clock.advance(60_000);
  assert.deepEqual([side.pc.signalingState, side.offers], ["stable", 0]);
  assert.deepEqual(side.errors.map(({ code }) => code), ["too_large"]);
  side.pc.removeTrack(side.pc.getSenders()[0]);
  side.negotiator.reconsider();
  await settle();
  assert.ok(side.offers >= 1);
  assert.deepEqual([side.pc.signalingState, side.errors.length], ["stable", 1]);
});

test("one whose offer is too large still answers", async () => {
  const side = new Side();
  side.maxBytes = 1_000;
  side.pc.bytesPerTrack = 600;
  for (const track of fakeStream("video", "audio").getTracks()) side.pc.addTrack(track);
  await settle();
  side.maxBytes = 2_000;
  await side.negotiator.receive({ description: { type: "offer", sdp: "v=0\r\na=tracks:t\r\n" } });
  assert.deepEqual([side.pc.signalingState, side.pc.remoteTracks], ["stable", ["t"]]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Negotiator } from "../src/negotiator.js";
import { FakeClock, settle } from "./helpers/clock.js";
import { FakePeerConnection, fakeStream } from "./helpers/peer_connection.js";

/** Two negotiators over a link that can be cut; `sent` has what each of them said. */
class Pair {
  clock = new FakeClock();
  cut = false;
  errors = [];
  sent = { impolite: [], polite: [] };

  constructor() {
    this.impolite = this.#side("impolite", "polite", false);
    this.polite = this.#side("polite", "impolite", true);
  }

  #side(name, other, polite) {
    const pc = new FakePeerConnection();
    const send = (data) => {
      this.sent[name].push(data);
      if (!this.cut) queueMicrotask(() => this[other].negotiator.receive(data));
    };
    const report = (cause) => this.errors.push(cause);
    return { pc, negotiator: new Negotiator(pc, { polite, send, report, timers: this.clock }) };
  }

  resume() {
    this.impolite.negotiator.resume();
    this.polite.negotiator.resume();
  }

  pause() {
    this.impolite.negotiator.pause();
    this.polite.negotiator.pause();
  }

  offers(name) {
    return this.sent[name].filter((data) => data.description?.type === "offer");
  }

  assertConnected() {
    assert.deepEqual(this.errors, []);
    for (const { pc } of [this.impolite, this.polite]) assert.equal(pc.signalingState, "stable");
    assert.deepEqual(this.impolite.pc.remoteTracks, trackIds(this.polite.pc));
    assert.deepEqual(this.polite.pc.remoteTracks, trackIds(this.impolite.pc));
  }
}

const trackIds = (pc) => pc.getSenders().map((sender) => sender.track.id);
const addTrack = (side) => side.pc.addTrack(fakeStream("video").getTracks()[0]);

test("one side offers, the other answers", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  pair.assertConnected();
  assert.equal(pair.polite.pc.candidates.length, 1);
  assert.equal(pair.impolite.pc.candidates.length, 1);
});

test("glare: the polite side takes its offer back, and both tracks arrive", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  addTrack(pair.polite);
  await settle();
  assert.equal(pair.offers("impolite").length, 1);
  assert.ok(pair.offers("polite").length >= 1);
  pair.assertConnected();
});

test("an offer is taken back only after it brought a candidate, or brought none for long", async () => {
  const pair = new Pair();
  pair.cut = true;
  pair.resume();
  const { pc, negotiator } = pair.polite;
  pc.withholdCandidates = true;
  addTrack(pair.polite);
  await settle();
  negotiator.receive({ description: { type: "offer", sdp: "v=0\r\na=tracks:t\r\n" } });
  await settle();
  assert.equal(pc.signalingState, "have-local-offer");
  await pair.clock.advance(500);
  assert.deepEqual([pc.signalingState, pc.remoteTracks, pair.errors], ["stable", ["t"], []]);
  assert.deepEqual(pair.clock.pending, []);
});

test("glare again and again ends well", async () => {
  const pair = new Pair();
  pair.resume();
  for (let round = 0; round < 5; round += 1) {
    addTrack(pair.polite);
    addTrack(pair.impolite);
    await settle();
  }
  pair.assertConnected();
});

test("no offer is made before the peer can hear it", async () => {
  const pair = new Pair();
  addTrack(pair.impolite);
  await settle();
  assert.deepEqual(pair.sent.impolite, []);
  pair.resume();
  await settle();
  pair.assertConnected();
});

test("an offer that was lost is said again when the peer is back", async () => {
  const pair = new Pair();
  pair.resume();
  pair.cut = true;
  addTrack(pair.impolite);
  await settle();
  pair.pause();
  pair.cut = false;
  pair.resume();
  await settle();
  assert.equal(pair.offers("impolite").length, 2);
  pair.assertConnected();
});

test("an answer that was lost is said again, and a second answer does no harm", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  const answer = pair.sent.polite.find((data) => data.description?.type === "answer");
  await pair.impolite.negotiator.receive(answer);
  pair.assertConnected();
});

test("candidates wait for the description they belong to", async () => {
  const pair = new Pair();
  pair.cut = true;
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  const [offer] = pair.offers("impolite");
  const candidate = pair.sent.impolite.find((data) => data.candidate);
  await pair.polite.negotiator.receive(candidate);
  assert.deepEqual(pair.polite.pc.candidates, []);
  await pair.polite.negotiator.receive(offer);
  assert.deepEqual(pair.polite.pc.candidates, [candidate.candidate]);
  assert.deepEqual(pair.errors, []);
});

test("candidates of the next ICE generation wait as well", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  pair.cut = true;
  const before = pair.sent.impolite.length;
  pair.impolite.pc.restartIce();
  await settle();
  const [offer, candidate] = pair.sent.impolite.slice(before);
  await pair.polite.negotiator.receive(candidate);
  assert.equal(pair.polite.pc.candidates.length, 1);
  await pair.polite.negotiator.receive(offer);
  assert.equal(pair.polite.pc.candidates.length, 2);
});

test("a candidate without ufrag that fits nothing is forgiven only while an offer is ignored", async () => {
  const pair = new Pair();
  pair.impolite.pc.addIceCandidate = async () => {
    throw new DOMException("no", "OperationError");
  };
  const stray = { candidate: { candidate: "candidate:x", sdpMid: "0" } };
  await pair.impolite.negotiator.receive({ description: { type: "offer", sdp: "v=0\r\na=tracks:\r\n" } });
  await pair.impolite.negotiator.receive(stray);
  assert.equal(pair.errors.length, 1);
  pair.impolite.negotiator.resume();
  addTrack(pair.impolite);
  pair.cut = true;
  await settle();
  await pair.impolite.negotiator.receive({ description: { type: "offer", sdp: "v=0\r\na=tracks:\r\n" } });
  await pair.impolite.negotiator.receive(stray);
  assert.equal(pair.errors.length, 1);
});

test("ICE that failed is restarted at once, ICE that broke while away on resume", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  pair.impolite.pc.setIceState("failed");
  await settle();
  assert.equal(pair.offers("impolite").length, 2);
  pair.impolite.pc.setIceState("disconnected");
  await settle();
  assert.equal(pair.offers("impolite").length, 2);
  pair.pause();
  pair.resume();
  await settle();
  assert.equal(pair.offers("impolite").length, 3);
  pair.assertConnected();
});

test("a healthy connection is left alone on resume", async () => {
  const pair = new Pair();
  pair.resume();
  addTrack(pair.impolite);
  await settle();
  for (const { pc } of [pair.impolite, pair.polite]) pc.setIceState("connected");
  const sent = pair.sent.impolite.length + pair.sent.polite.length;
  pair.pause();
  pair.resume();
  await settle();
  assert.equal(pair.sent.impolite.length + pair.sent.polite.length, sent);
});

test("a broken description is reported, and what follows is handled", async () => {
  const pair = new Pair();
  pair.resume();
  pair.polite.pc.setRemoteDescription = async () => {
    delete pair.polite.pc.setRemoteDescription;
    throw new DOMException("bad SDP", "OperationError");
  };
  await pair.polite.negotiator.receive({ description: { type: "offer", sdp: "garbage" } });
  assert.equal(pair.errors.splice(0).length, 1);
  addTrack(pair.impolite);
  await settle();
  pair.assertConnected();
});

test("after close nothing is sent and nothing is heard", async () => {
  const pair = new Pair();
  pair.resume();
  pair.impolite.negotiator.close();
  addTrack(pair.impolite);
  await pair.impolite.negotiator.receive({ description: { type: "offer", sdp: "v=0\r\n" } });
  await settle();
  assert.deepEqual(pair.sent.impolite, []);
  assert.equal(pair.impolite.pc.remoteDescription, null);
});

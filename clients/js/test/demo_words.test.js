/** What the demo page says in which state. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  clock,
  describeEnd,
  describePicture,
  describeQuality,
  describeStage,
  inSeconds,
  timer,
  UNNAMED,
} from "../demo/words.js";

const TOGETHER = {
  name: UNNAMED,
  signaling: "connected",
  peer: "joined",
  media: "connected",
  flows: true,
  picture: true,
  graceMs: 0,
  about: { camera: true, microphone: true },
  sends: true,
  waitedMs: 0,
};
const stage = (changes) => describeStage({ ...TOGETHER, ...changes });

test("a call in which all is well shows the picture and nothing else", () => {
  assert.deepEqual(stage({}), { chip: "", placard: "", count: "" });
});

test("a loss is a chip beside a picture that goes on, and a placard with a countdown over one that stands still", () => {
  const lost = { peer: "reconnecting", graceMs: 8_400, name: "Bob" };
  const words = "Bob lost the connection. Waiting for them to come back…";
  assert.deepEqual(stage(lost), { chip: words, placard: "", count: "9 s" });
  assert.deepEqual(stage({ ...lost, flows: false }), { chip: "", placard: words, count: "9 s" });
  assert.equal(stage({ ...lost, graceMs: -1 }).count, "");
  assert.equal(stage({ signaling: "reconnecting" }).chip, "Your connection was lost. Coming back…");
});

test("nobody reads that a call connects for ever", () => {
  const none = { camera: false, microphone: false };
  const apart = { media: "new", flows: false, picture: false };
  for (const [changes, text] of [
    [{ peer: "absent", flows: false }, "Waiting for the other side…"],
    [{ peer: "left", name: "Bob", flows: false }, "Bob left. They can come back with the same link."],
    [{ ...apart, sends: null }, "Waiting for your camera: answer the browser's question."],
    [{ ...apart, sends: false, about: none }, "Neither side has a camera or a microphone. You can chat."],
    [{ ...apart }, "Connecting picture and sound…"],
    [{ ...apart, waitedMs: 16_000 }, "Picture and sound still do not get through. A firewall may be in the way."],
    [{ media: "failed" }, "Picture and sound cannot get through. A TURN server would help."],
    [{ picture: false, about: none }, "The other side has no camera on."],
    [{ picture: false, about: null }, "No picture from the other side yet."],
  ]) {
    assert.equal(stage(changes).placard, text);
  }
});

test("every end has a title and a text, and those that can be undone a way back", () => {
  assert.deepEqual(describeEnd("replaced").wayBack, "Continue here");
  assert.deepEqual(describeEnd("call_full").wayBack, "Try again");
  for (const reason of ["hangup", "grace_expired", "no_show", "never heard of"]) {
    const { title, text, wayBack } = describeEnd(reason);
    assert.ok(title && text && !text.includes("_"));
    assert.equal(wayBack, "");
  }
});

test("times and qualities are written as people read them", () => {
  assert.equal(inSeconds(8_001), "9 s");
  assert.deepEqual([0, 59_999, 60_000, 3_723_000].map(timer), ["0:00", "0:59", "1:00", "1:02:03"]);
  assert.equal(clock(new Date(2026, 0, 2, 3, 4, 5, 6)), "03:04:05.006");
  const good = { width: 640, height: 360, fps: 29.7, rttMs: 12.4, lost: 0 };
  assert.equal(describeQuality(good), "good · 640×360 · 30 fps · 12 ms");
  assert.match(describeQuality({ ...good, rttMs: 250 }), /^fair/);
  assert.match(describeQuality({ ...good, lost: 0.1 }), /^poor/);
  assert.equal(describeQuality({ lost: 0 }), "–");
});

test("a picture that stood still is not said to have gone on", () => {
  assert.equal(describePicture({ frames: 17, overMs: 580, frozenMs: 100 }), "picture never stopped: 17 frames in 0.58 s");
  assert.equal(describePicture({ frames: 17, overMs: 2_000, frozenMs: 900 }), "picture stood still for 0.90 s");
  assert.equal(describePicture({ frames: 0, overMs: 580, frozenMs: 580 }), "picture stood still for 0.58 s");
});

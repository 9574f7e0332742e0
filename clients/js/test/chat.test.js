import assert from "node:assert/strict";
import test from "node:test";

import { settle } from "./helpers/clock.js";
import { enterRoom, LIMITS, reconnect } from "./helpers/rooms.js";

const KEYED = { limits: { ...LIMITS, chat_key: 64 } };
const enter = () => enterRoom({ welcome: KEYED });
const line = (seq, text) => ({ seq, from: "alice", text, at: 5 });

test("a line without an answer is sent again with the same key until it has one", async () => {
  const place = await enter();
  const sent = place.call.chat("once");
  await settle();
  const { key } = place.browser.socket.last("chat");
  assert.match(key, /^.{1,64}$/);
  for (let lost = 0; lost < 3; lost += 1) {
    await reconnect(place, KEYED);
    await place.browser.socket.joined();
    await place.clock.advance(1);
    assert.deepEqual(place.browser.socket.all("chat").map(({ text, key }) => [text, key]), [["once", key]]);
  }
  await place.browser.socket.ok("chat", { message: line(7, "once") });
  assert.equal((await sent).seq, 7);
});

test("each line has a key of its own and waits for the one before it", async () => {
  const { browser, call } = await enter();
  const lines = ["one", "two"].map((text) => call.chat(text));
  await settle();
  const [one, ...early] = browser.socket.all("chat");
  assert.deepEqual([one.text, early], ["one", []]);
  await browser.socket.ok("chat", { message: line(1, "one") });
  const two = browser.socket.last("chat");
  assert.equal(two.text, "two");
  assert.notEqual(two.key, one.key);
  await browser.socket.ok("chat", { message: line(2, "two") });
  assert.deepEqual((await Promise.all(lines)).map(({ seq }) => seq), [1, 2]);
});

test("a refusal that passes is waited for, one that stays is told, and the next line goes on", async () => {
  const { browser, call, clock } = await enter();
  const sent = call.chat("hi", { key: "mine" });
  await settle();
  await browser.socket.refuse("chat", "unavailable", { room: "r", retry_after_ms: 2_000 });
  await clock.advance(1_999);
  assert.equal(browser.socket.all("chat").length, 1);
  await clock.advance(251);
  assert.deepEqual(browser.socket.all("chat").map(({ key }) => key), ["mine", "mine"]);
  const refused = assert.rejects(sent, { code: "bad_request" });
  await browser.socket.refuse("chat", "bad_request", { room: "r" });
  await refused;
  const next = call.chat("next");
  await settle();
  await browser.socket.ok("chat", { message: line(1, "next") });
  assert.equal((await next).text, "next");
});

async function endedMeanwhile() {
  const place = await enter();
  const sent = place.call.chat("last words");
  await settle();
  const { key } = place.browser.socket.last("chat");
  await reconnect(place, KEYED);
  await place.browser.socket.refuse("join", "room_ended", { room: "r", reason: "grace_expired" });
  await settle();
  assert.equal(place.browser.socket.last("chat").key, key);
  return { ...place, sent };
}

test("a line that was stored before the end is found after it", async () => {
  const { browser, sent } = await endedMeanwhile();
  await browser.socket.ok("chat", { message: line(3, "last words") });
  assert.equal((await sent).seq, 3);
});

test("a line that was not stored before the end is known not to be", async () => {
  const { browser, sent } = await endedMeanwhile();
  const refused = assert.rejects(sent, { code: "room_ended", reason: "grace_expired" });
  await browser.socket.refuse("chat", "room_ended", { room: "r", reason: "grace_expired" });
  await refused;
});

test("a room that nobody remembers leaves it open", async () => {
  const { browser, sent } = await endedMeanwhile();
  const refused = assert.rejects(sent, { code: "unknown" });
  await browser.socket.refuse("chat", "room_not_found", { room: "r" });
  await refused;
});

test("the end of the client ends the wait", async () => {
  const { call, client } = await enter();
  const refused = assert.rejects(call.chat("hi"), { code: "closed" });
  await settle();
  client.close();
  await refused;
  await assert.rejects(call.chat("too late"), { code: "closed" });
});

test("an older node cannot answer for a key, and without one a line is asked for once", async () => {
  const place = await enter();
  const refused = assert.rejects(place.call.chat("hi"), { code: "unknown" });
  await settle();
  await reconnect(place);
  await place.browser.socket.joined();
  await place.clock.advance(1);
  await refused;
  assert.equal(place.browser.socket.all("chat").length, 0);
  const plain = place.call.chat("plain");
  await settle();
  assert.equal(place.browser.socket.last("chat").key, undefined);
  await place.browser.socket.ok("chat", { message: line(1, "plain") });
  assert.equal((await plain).text, "plain");
});

test("too many lines at once are refused", async () => {
  const { call } = await enter();
  const lines = Array.from({ length: 257 }, () => call.chat("much"));
  lines.slice(0, 256).forEach((waiting) => waiting.catch(() => {}));
  await assert.rejects(lines[256], { code: "queue_full" });
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./helpers/clock.js";
import { held, record } from "./helpers/cluster.js";
import { fakeStream } from "./helpers/peer_connection.js";
import { enterRoom, LIMITS, reconnect } from "./helpers/rooms.js";

const types = (socket) => socket.heard.map(({ type }) => type).filter((type) => type !== "signal" && type !== "ping");
const resumed = (...rooms) => ({ limits: LIMITS, resumed: true, rooms });

test("leaving and joining at once gives a new call, which is joined after the old one was left", async () => {
  const { browser, client, call } = await enterRoom();
  const left = call.leave();
  const again = client.join("r");
  assert.notEqual(again, call);
  await settle();
  assert.deepEqual(types(browser.socket), ["hello", "join", "leave"]);
  await browser.socket.ok("leave");
  await left;
  assert.deepEqual(types(browser.socket), ["hello", "join", "leave", "join"]);
  await browser.socket.joined({ peer: "joined" });
  assert.equal(await again.ready, again);
  assert.deepEqual([call.endedReason, again.endedReason, client.join("r") === again], ["left", null, true]);
});

test("join, leave, join in one go, as React's strict mode does, ends in one call that works", async () => {
  const { browser, client, call } = await enterRoom({ joined: null });
  call.leave();
  const again = client.join("r");
  await settle();
  assert.deepEqual(types(browser.socket), ["hello", "join"]);
  await browser.socket.joined();
  await browser.socket.ok("leave");
  assert.deepEqual(types(browser.socket), ["hello", "join", "leave", "join"]);
  await browser.socket.joined();
  assert.equal((await again.ready).endedReason, null);
  assert.equal(call.endedReason, "left");
});

test("a second join adds its media to the call", async () => {
  const { client, call } = await enterRoom();
  assert.deepEqual(call.peerConnection.getSenders(), []);
  const media = fakeStream("audio", "video");
  assert.equal(client.join("R", { media }), call);
  assert.deepEqual(call.peerConnection.getSenders().map(({ track }) => track), media.getTracks());
});

test("hanging up without a network is told after the next welcome, whenever that is", async () => {
  for (const [method, type] of [["hangUp", "end"], ["leave", "leave"]]) {
    const place = await enterRoom();
    const { browser, clock, call } = place;
    const ended = record(call, "ended");
    await browser.socket.drop();
    const departure = assert.rejects(call[method](), { code: "timeout" });
    assert.equal(call.peerConnection, null);
    await clock.advance(60_000);
    await departure;
    assert.equal(ended.length, 1);
    while (!browser.socket.onopen) await clock.advance(100);
    await browser.socket.accept();
    await browser.socket.welcome(resumed(held("r", { peer: "joined" })));
    assert.deepEqual(types(browser.socket), ["hello", type]);
    await browser.socket.ok(type);
    await reconnect(place, resumed());
    assert.deepEqual(types(browser.socket), ["hello"]);
  }
});

test("hanging up after the session was lost steps in first, so that the peer is told", async () => {
  const place = await enterRoom();
  const { browser, call } = place;
  await browser.socket.drop();
  const done = call.hangUp();
  await place.clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome({ limits: LIMITS });
  await browser.socket.joined();
  assert.deepEqual(types(browser.socket), ["hello", "join", "end"]);
  await browser.socket.ok("end");
  await done;
});

test("hanging up is repeated until it is answered", async () => {
  const place = await enterRoom();
  const { browser, clock, call } = place;
  const done = call.hangUp();
  await browser.socket.refuse("end", "unavailable", { retry_after_ms: 1_000 });
  await clock.advance(1_250);
  assert.equal(browser.socket.all("end").length, 2);
  await reconnect(place, resumed(held("r")));
  await browser.socket.refuse("end", "room_ended");
  await done;
});

test("leaving a room that was never asked for says nothing", async () => {
  const { browser, client } = await enterRoom();
  await browser.socket.drop();
  const call = client.join("other");
  await call.leave();
  assert.equal(call.endedReason, "left");
});

test("a side that the server holds and nobody knows of is given back", async () => {
  const place = await enterRoom();
  await reconnect(place, resumed(held("r", { peer: "joined" }), held("ghost")));
  assert.deepEqual(types(place.browser.socket), ["hello", "leave"]);
  assert.equal(place.browser.socket.last("leave").room, "ghost");
});

test("hanging up and closing at once is written, and leaves no rejection behind", async () => {
  const rejections = [];
  const keep = (error) => rejections.push(error);
  process.on("unhandledRejection", keep);
  const { browser, client, call } = await enterRoom();
  call.hangUp();
  client.close();
  await settle();
  process.off("unhandledRejection", keep);
  assert.deepEqual([browser.socket.all("end").length, call.endedReason, rejections], [1, "hangup", []]);
});

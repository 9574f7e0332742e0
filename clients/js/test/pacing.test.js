import assert from "node:assert/strict";
import { test } from "node:test";

import { appSignals, enterRoom, LIMITS, reconnect, signals, fromPeer } from "./helpers/rooms.js";
import { held } from "./helpers/cluster.js";
import { settle } from "./helpers/clock.js";

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

/** Takes frames as the server does; the highest number of those that were too many. */
function countExcess(socket, clock, { frames_per_second: rate, frames_burst: burst } = LIMITS) {
  const bucket = { tokens: burst - 1, at: clock.now(), excess: 0 }; // `hello` took one
  socket.onclientframe = () => {
    bucket.tokens = Math.min(burst, bucket.tokens + ((clock.now() - bucket.at) * rate) / 1000) - 1;
    bucket.at = clock.now();
    if (bucket.tokens < 0) bucket.excess += 1;
  };
  return bucket;
}

test("256 signals that were sent while away arrive in order, at the server's pace", async () => {
  for (const limits of [LIMITS, { ...LIMITS, frames_per_second: 20, frames_burst: 50 }]) {
    const place = await enterRoom();
    const { browser, clock, call } = place;
    await browser.socket.say(fromPeer("an older SDK", 1, { here: null }));
    await browser.socket.drop();
    for (const i of numbers(256)) call.send(i);
    await clock.advance(250);
    await browser.socket.accept();
    const bucket = countExcess(browser.socket, clock, limits);
    await browser.socket.welcome({ limits, resumed: true, rooms: [held("r", { peer: "joined" })] });
    await clock.advance(14_000);
    assert.deepEqual(appSignals(browser.socket), numbers(256));
    assert.equal(bucket.excess, 0);
    assert.equal(browser.sockets.length, 2);
  }
});

test("a burst of a connected app keeps to the pace as well, and what negotiates goes first", async () => {
  const { browser, clock, call } = await enterRoom();
  const bucket = countExcess(browser.socket, clock);
  await browser.socket.say(fromPeer("an older SDK", 1, { here: null }));
  for (const i of numbers(256)) call.send(i);
  call.peerConnection.restartIce();
  await settle();
  await clock.advance(1_000);
  assert.ok(signals(browser.socket).some(({ description }) => description?.type === "offer"));
  assert.ok(appSignals(browser.socket).length < 250);
  await clock.advance(9_000);
  assert.deepEqual(appSignals(browser.socket), numbers(256));
  assert.equal(bucket.excess, 0);
});

test("what is sent while the peer is reconnecting waits for the peer", async () => {
  const place = await enterRoom();
  const { browser, call } = place;
  await browser.socket.say({ type: "peer", room: "r", state: "reconnecting", grace_ms: 10_000 });
  call.send("late");
  assert.deepEqual(appSignals(browser.socket), []);
  await reconnect(place, { limits: LIMITS, resumed: true, rooms: [held("r", { peer: "reconnecting" })] });
  assert.deepEqual(appSignals(browser.socket), []);
  await browser.socket.say({ type: "peer", room: "r", state: "reconnected" });
  assert.deepEqual(appSignals(browser.socket), ["late"]);
});

test("requests keep to the pace; hanging up does not wait for it", async () => {
  const { browser, clock, call } = await enterRoom({
    welcome: { limits: { ...LIMITS, frames_per_second: 1, frames_burst: 10 } },
  });
  for (const i of numbers(20)) call.chat(`message ${i}`).catch(() => {});
  await settle();
  const sent = browser.socket.all("chat").length;
  assert.ok(sent > 0 && sent < 10, String(sent));
  await clock.advance(5_000);
  assert.ok(browser.socket.all("chat").length - sent >= 3);
  for (const i of numbers(100)) call.chat(`more ${i}`).catch(() => {});
  call.hangUp();
  assert.equal(browser.socket.all("end").length, 1);
});

test("a server that is sent too much is left alone for as long as it says", async () => {
  const { browser, clock, call } = await enterRoom();
  await browser.socket.say({ type: "error", code: "rate_limited", message: "slow down", retry_after_ms: 2_000 });
  call.send("later");
  await clock.advance(1_999);
  assert.deepEqual(appSignals(browser.socket), []);
  await clock.advance(100);
  assert.deepEqual(appSignals(browser.socket), ["later"]);
});

test("a peer that reads too slowly is left alone for a while; other calls are not", async () => {
  const { browser, clock, client, call } = await enterRoom();
  const other = client.join("other");
  await browser.socket.joined({ peer: "joined" });
  const error = { type: "error", room: "r", code: "rate_limited", message: "the peer is slow", retry_after_ms: 2_000 };
  await browser.socket.say(error);
  call.send("to the slow one");
  other.send("to another");
  assert.deepEqual(appSignals(browser.socket), ["to another"]);
  await clock.advance(2_000);
  assert.deepEqual(appSignals(browser.socket), ["to another", "to the slow one"]);
});

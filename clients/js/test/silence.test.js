import assert from "node:assert/strict";
import { test } from "node:test";

import { settle } from "./helpers/clock.js";
import { enterRoom, LIMITS } from "./helpers/rooms.js";

/** Answers every ping of a socket from now on. */
function answerPings(socket) {
  socket.onclientframe = (frame) => frame.type === "ping" && socket.say({ type: "pong", id: frame.id });
}

test("a half-open connection is noticed and left for another node within 20 seconds", async () => {
  const { browser, clock, client } = await enterRoom();
  await clock.advance(8_000);
  assert.equal(browser.socket.all("ping").length, 1);
  await clock.advance(7_999);
  assert.equal(client.state, "connected");
  await clock.advance(1 + 250);
  assert.deepEqual([client.state, browser.socket.url], ["reconnecting", "ws://two.example/v1?room=r"]);
});

test("a connection that answers is kept, and one that is busy is not asked", async () => {
  const { browser, clock, client } = await enterRoom();
  answerPings(browser.socket);
  await clock.advance(60_000);
  assert.deepEqual([client.state, browser.sockets.length], ["connected", 1]);
  const pings = browser.socket.all("ping").length;
  for (let second = 0; second < 30; second += 5) {
    await browser.socket.say({ type: "typing", room: "r" });
    await clock.advance(5_000);
  }
  assert.equal(browser.socket.all("ping").length, pings);
});

test("a node that tells no limits is never sent a ping", async () => {
  const { browser, clock, client } = await enterRoom({ welcome: {} });
  await clock.advance(120_000);
  assert.deepEqual([client.state, browser.socket.all("ping").length], ["connected", 0]);
});

const SUSPICIONS = {
  "a network that is back": ({ browser }) => browser.environment.window.dispatchEvent(new Event("online")),
  "a user who is back": ({ browser }) => browser.environment.document.dispatchEvent(new Event("visibilitychange")),
  "media that break": ({ call }) => call.peerConnection.setIceState("disconnected"),
};
for (const [what, happens] of Object.entries(SUSPICIONS)) {
  test(`${what} raises suspicion: an answer in time, or another node`, async () => {
    for (const [welcome, patience] of [[{ limits: LIMITS }, 8_000], [{}, 5_000]]) {
      const place = await enterRoom({ welcome });
      const { browser, clock, client } = place;
      const question = welcome.limits ? "ping" : "join";
      const before = browser.socket.all(question).length;
      happens(place);
      await settle();
      assert.equal(browser.socket.all(question).length, before + 1, question);
      await clock.advance(patience - 1);
      assert.equal(client.state, "connected");
      await clock.advance(1);
      assert.equal(client.state, "reconnecting");
    }
  });
}

test("a request that times out raises suspicion", async () => {
  const { browser, clock, client, call } = await enterRoom({ welcome: { limits: { ...LIMITS, ping_ms: 15_000 } } });
  await assert.rejects(Promise.all([call.chat("hello"), clock.advance(10_000)]), { code: "timeout" });
  assert.equal(browser.socket.all("ping").length, 1);
  await clock.advance(15_000);
  assert.equal(client.state, "reconnecting");
});

test("what a computer that slept has not read yet is waited for", async () => {
  const { browser, clock, client } = await enterRoom();
  browser.environment.window.dispatchEvent(new Event("online"));
  clock.sleep(3_600_000);
  await clock.advance(0);
  assert.equal(client.state, "connected");
  answerPings(browser.socket);
  await browser.socket.say({ type: "pong", id: browser.socket.last("ping").id });
  await clock.advance(8_000);
  assert.equal(client.state, "connected");
});

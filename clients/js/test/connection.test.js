import assert from "node:assert/strict";
import { test } from "node:test";

import { Keepline, KeeplineError } from "../keepline.js";
import { FakeClock, settle } from "./helpers/clock.js";
import { fakeBrowser, held, record } from "./helpers/cluster.js";

const URLS = ["ws://one.example/v1", "ws://two.example/v1"];

function start(options = {}, browserOptions = {}) {
  const clock = new FakeClock();
  const browser = fakeBrowser(clock, browserOptions);
  const client = new Keepline({ url: URLS, token: "jwt", ...options }, browser.environment);
  return { clock, browser, client, states: record(client, "state") };
}

async function connected(options, browserOptions) {
  const started = start(options, browserOptions);
  const welcomed = started.client.connect();
  await settle();
  await started.browser.socket.accept();
  await started.browser.socket.welcome();
  await welcomed;
  return started;
}

const stateNames = (states) => states.map(([, { state }]) => state);

test("connects with the subprotocol, says hello and is welcomed", async () => {
  const { client, browser, states } = await connected();
  assert.equal(browser.socket.url, URLS[0]);
  assert.deepEqual(browser.socket.protocols, ["keepline.v1"]);
  const { id, ...hello } = browser.socket.heard[0];
  assert.deepEqual(hello, { type: "hello", token: "jwt" });
  assert.equal(typeof id, "string");
  assert.deepEqual([client.node, client.user], ["n1", "alice"]);
  assert.deepEqual(stateNames(states), ["connecting", "connected"]);
});

test("names the room for the load balancer", async () => {
  const { browser } = await connected({ room: "r" });
  assert.equal(browser.socket.url, `${URLS[0]}?room=r`);
});

test("refuses addresses that are no WebSocket's", () => {
  assert.throws(() => new Keepline({ url: "https://one.example", token: "jwt" }), TypeError);
  assert.throws(() => new Keepline({ url: [], token: "jwt" }), TypeError);
});

test("comes back to the next address with the last resume secret", async () => {
  const { browser, clock, states } = await connected();
  await browser.socket.drop();
  await clock.advance(250);
  await browser.socket.accept();
  assert.equal(browser.socket.url, URLS[1]);
  assert.equal(browser.socket.last("hello").resume, "r1");
  await browser.socket.welcome({ resume: "r2" });
  await browser.socket.drop();
  await clock.advance(500);
  await browser.socket.accept();
  assert.equal(browser.socket.url, URLS[0]);
  assert.equal(browser.socket.last("hello").resume, "r2");
  assert.deepEqual(stateNames(states), ["connecting", "connected", "reconnecting", "connected", "reconnecting"]);
});

test("waits longer after each failure, and starts over after a connection that lasted", async () => {
  const { browser, clock } = await connected();
  await clock.advance(5_000);
  const waits = [];
  for (let failure = 0; failure < 7; failure += 1) {
    await browser.socket.drop();
    waits.push(clock.pending[0]);
    await clock.advance(clock.pending[0]);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 10000]);
  await browser.socket.accept();
  await browser.socket.welcome();
  await clock.advance(5_000);
  await browser.socket.drop();
  assert.equal(clock.pending[0], 250);
});

test("obeys goodbye to the millisecond, whoever closes first", async () => {
  const { browser, clock } = await connected();
  await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 1_240 });
  await clock.advance(40);
  await browser.socket.drop(4503);
  assert.deepEqual(clock.pending, [1_200]);
  browser.environment.window.dispatchEvent(new Event("online"));
  await clock.advance(1_199);
  assert.equal(browser.sockets.length, 1);
  await clock.advance(1);
  assert.equal(browser.sockets.length, 2);

  await browser.socket.accept();
  await browser.socket.welcome();
  await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 100 });
  await clock.advance(100);
  assert.equal(browser.sockets.length, 3);
});

test("moves after a goodbye without a gap", async () => {
  const { browser, clock, client, states } = await connected();
  const call = client.join("r");
  const events = record(call, "joined", "data", "ended");
  const [before] = browser.sockets;
  await before.joined({ peer: "joined" });
  await before.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 300 });
  await clock.advance(300);
  const [, next] = browser.sockets;
  await next.accept();
  assert.equal(next.last("hello").resume, "r1");
  await before.say(signal("b", 1, { app: "while moving" }));
  await next.say(signal("b", 2, { app: "early" }));
  await next.welcome({ resume: "r2", resumed: true, rooms: [held("r", { peer: "joined" })] });
  await before.say(signal("b", 3, { app: "on its way" }));
  await before.drop(4409);
  await next.say(signal("b", 4, { app: "moved" }));
  call.send("here");
  assert.deepEqual(next.last("signal").data.app, "here");
  assert.deepEqual(
    events.filter(([name]) => name === "data").map(([, detail]) => detail),
    ["while moving", "early", "on its way", "moved"],
  );
  assert.equal(events.filter(([name]) => name === "joined").length, 2);
  assert.equal(states.at(-1)[1].state, "connected");
  await clock.advance(1_000);
  assert.equal(before.closedWith, 1000);
  client.close();
  assert.equal(next.closedWith, 1000);
});

test("a goodbye counts once, also when it is said again", async () => {
  const { browser, clock } = await connected();
  for (const reconnect_after_ms of [100, 50]) {
    await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms });
  }
  await clock.advance(99);
  assert.equal(browser.sockets.length, 1);
  await clock.advance(1);
  await browser.sockets[0].say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  assert.equal(browser.sockets.length, 2);
});

test("what is sent during a move waits for the next connection", async () => {
  const { browser, clock, client } = await connected();
  const call = client.join("r");
  const [before] = browser.sockets;
  await before.joined({ peer: "joined" });
  await before.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.socket.accept();
  call.send("in between");
  assert.ok(!before.all("signal").some(({ data }) => data.app === "in between"));
  await browser.socket.welcome({ resumed: true, rooms: [held("r", { peer: "joined" })] });
  assert.ok(browser.socket.all("signal").some(({ data }) => data.app === "in between"));
});

test("a move that fails is tried again while the old connection works", async () => {
  const { browser, client, clock, states } = await connected();
  const call = client.join("r");
  const [old] = browser.sockets;
  await old.joined({ peer: "joined" });
  await old.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.sockets[1].drop();
  await clock.advance(250);
  await browser.sockets[2].accept();
  call.send("not lost");
  await browser.sockets[2].refuse("hello", "unavailable", { retry_after_ms: 1_000 });
  assert.equal(old.last("signal").data.app, "not lost");
  assert.deepEqual([client.state, old.readyState], ["connected", 1]);
  await clock.advance(1_499);
  assert.equal(browser.sockets.length, 3);
  await clock.advance(1);
  await browser.sockets[3].accept();
  await browser.sockets[3].welcome({ resumed: true, rooms: [held("r", { peer: "joined" })] });
  await clock.advance(1_000);
  assert.deepEqual([old.closedWith, states.length, call.endedReason], [1000, 2, null]);
});

test("a move that fails when the old connection has ended is a reconnect", async () => {
  const { browser, clock, states } = await connected();
  await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.sockets[0].drop(4503);
  assert.equal(states.length, 2);
  await browser.sockets[1].drop();
  assert.equal(states.at(-1)[1].state, "reconnecting");
  await clock.advance(0);
  assert.equal(browser.sockets.length, 3);
});

test("a move that is refused for good is not tried again, and the old connection is used to its end", async () => {
  const { browser, client, clock } = await connected();
  await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.sockets[1].accept();
  await browser.sockets[1].drop(4403);
  await clock.advance(60_000);
  assert.deepEqual([client.state, browser.sockets.length], ["connected", 2]);
});

test("what is sent while nobody is connected in the middle of a move waits", async () => {
  const { browser, clock, client } = await connected();
  const call = client.join("r");
  await browser.socket.joined({ peer: "joined" });
  await browser.socket.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.sockets[0].drop(4503);
  call.send("late");
  await browser.socket.accept();
  await browser.socket.welcome({ resumed: true, rooms: [held("r", { peer: "joined" })] });
  assert.ok(browser.socket.all("signal").some(({ data }) => data.app === "late"));
});

const signal = (stream, n, data) => ({ type: "signal", room: "r", stream, n, data });

for (const [code, reason] of [[4400, "bad_frame"], [4403, "origin_refused"], [4409, "replaced"], [4413, "too_large"]]) {
  test(`close ${code} is final: ${reason}`, async () => {
    const { browser, clock, client, states } = await connected();
    const events = record(client.join("r"), "ended");
    await browser.socket.drop(code);
    assert.deepEqual(clock.pending, []);
    assert.equal(browser.sockets.length, 1);
    assert.deepEqual(states.at(-1)[1], { state: "closed", reason });
    assert.deepEqual(events, [["ended", { reason }]]);
  });
}

for (const code of [1001, 1006, 1011, 1012, 4408, 4503, 4508]) {
  test(`close ${code} is followed by another attempt`, async () => {
    const { browser, clock } = await connected();
    await browser.socket.drop(code);
    await clock.advance(250);
    assert.equal(browser.sockets.length, 2);
  });
}

test("after 4429 it leaves the server a second", async () => {
  const { browser, clock } = await connected();
  await browser.socket.drop(4429);
  assert.deepEqual(clock.pending, [1_250]);
});

test("4401 is final for a fixed token, and gives a token function one more chance", async () => {
  const fixed = await connected();
  await fixed.browser.socket.drop(4401);
  assert.equal(fixed.client.state, "closed");

  const tokens = ["stale", "fresh", "fresher"];
  const { browser, client, clock } = start({ token: async () => tokens.shift() });
  const welcomed = client.connect();
  await settle();
  await browser.socket.accept();
  await browser.socket.refuse("hello", "unauthorized");
  await clock.advance(0);
  await browser.socket.accept();
  assert.equal(browser.socket.last("hello").token, "fresh");
  await browser.socket.drop(4401);
  await assert.rejects(welcomed, { code: "unauthorized" });
  assert.equal(client.state, "closed");
});

test("an attempt that hangs is given up", async () => {
  const { browser, client, clock } = start();
  client.connect();
  await settle();
  await clock.advance(10_000 + 250);
  assert.equal(browser.sockets.length, 2);
  assert.equal(browser.sockets[0].closedWith, 1000);
  assert.equal(client.state, "connecting");
});

test("a token that cannot be had is reported and asked for again", async () => {
  let asked = 0;
  const token = () => {
    asked += 1;
    if (asked === 1) throw new Error("backend away");
    return "jwt";
  };
  const { browser, client, clock } = start({ token });
  const errors = record(client, "error");
  client.connect();
  await settle();
  assert.equal(errors[0][1].code, "token_failed");
  await clock.advance(250);
  assert.equal(browser.sockets.length, 1);
});

test("hello refused as unavailable waits as long as the server says, and a little longer", async () => {
  const { browser, client, clock } = start();
  client.connect();
  await settle();
  await browser.socket.accept();
  await browser.socket.refuse("hello", "unavailable", { retry_after_ms: 3_000 });
  assert.deepEqual(clock.pending, [3_250]);
});

test("a user or a network that is back ends the wait", async () => {
  for (const wake of ["online", "visibilitychange"]) {
    const { browser } = await connected();
    await browser.socket.drop();
    const { window, document } = browser.environment;
    (wake === "online" ? window : document).dispatchEvent(new Event(wake));
    await settle();
    assert.equal(browser.sockets.length, 2, wake);
  }
});

test("a request without an answer is refused in time, and the connection goes on", async () => {
  const { browser, client, clock } = await connected();
  const call = client.join("r");
  await browser.socket.joined();
  const chat = call.chat("hello");
  const refused = assert.rejects(chat, (error) => error instanceof KeeplineError && error.code === "timeout");
  await clock.advance(10_000);
  await refused;
  assert.equal(client.state, "connected");
});

test("a change of network is followed by a proof that the connection lives", async () => {
  const { browser, client, clock } = await connected();
  client.join("r");
  await browser.socket.joined();
  browser.environment.window.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(browser.socket.all("join").length, 2);
  await browser.socket.joined();
  await clock.advance(5_000);
  assert.equal(client.state, "connected");
  browser.environment.window.dispatchEvent(new Event("online"));
  await clock.advance(5_000);
  assert.equal(client.state, "reconnecting");
});

test("a peer that reads too slowly does not fill the memory", async () => {
  const { browser, client } = await connected();
  const call = client.join("r");
  await browser.socket.joined({ peer: "joined" });
  browser.socket.bufferedAmount = 2 * 1024 * 1024;
  call.send("more");
  assert.equal(client.state, "reconnecting");
});

test("frames of no known form are ignored", async () => {
  const { browser, client } = await connected();
  client.join("r");
  await browser.socket.joined();
  for (const text of ["", "[]", "null", "7", "not json", '{"type":"news","room":"r"}', '{"type":"chat","room":"x"}']) {
    await browser.socket.sayText(text);
  }
  assert.equal(client.state, "connected");
});

test("close ends calls, timers and the connection; connect begins anew", async () => {
  const { browser, client, clock } = await connected();
  const call = client.join("r");
  await browser.socket.joined();
  client.close();
  client.close();
  await settle();
  assert.deepEqual([call.endedReason, client.state, browser.socket.closedWith], ["closed", "closed", 1000]);
  assert.deepEqual(clock.pending, []);
  client.connect();
  await settle();
  assert.equal(browser.sockets.length, 2);
});

test("what waits for an answer is told why none comes", async () => {
  const { browser, client, clock } = await connected();
  const call = client.join("r");
  const [old] = browser.sockets;
  await old.joined({ peer: "joined" });
  const moved = assert.rejects(call.chat("on its way"), { code: "connection_lost" });
  await old.say({ type: "goodbye", reason: "draining", reconnect_after_ms: 0 });
  await clock.advance(0);
  await browser.socket.accept();
  await browser.socket.welcome({ resumed: true, rooms: [held("r", { peer: "joined" })] });
  await clock.advance(1_000);
  await moved;
  const closed = assert.rejects(call.chat("too late"), { code: "closed" });
  client.close();
  await closed;
});

test("errors that belong to no request reach the app", async () => {
  const { browser, client } = await connected();
  const errors = record(client, "error");
  const call = client.join("r");
  await browser.socket.joined();
  const callErrors = record(call, "error");
  await browser.socket.say({ type: "error", code: "rate_limited", message: "slow down", retry_after_ms: 500 });
  await browser.socket.say({ type: "error", room: "r", code: "bad_request", message: "no" });
  assert.deepEqual(errors.map(([, { code, retryAfterMs }]) => [code, retryAfterMs]), [["rate_limited", 500]]);
  assert.deepEqual(callErrors.map(([, { code, room }]) => [code, room]), [["bad_request", "r"]]);
});

test("joining from a listener of welcome joins once", async () => {
  const { browser, client } = start();
  client.on("welcome", () => client.join("r"));
  client.connect();
  await settle();
  await browser.socket.accept();
  await browser.socket.welcome();
  assert.equal(browser.socket.all("join").length, 1);
});

test("rooms listed by a resumed welcome are held without a join, others are joined", async () => {
  const { browser, client, clock } = await connected();
  const calls = ["r1", "r2"].map((room) => client.join(room));
  for (const { id, room } of browser.socket.all("join")) {
    await browser.socket.say({ type: "joined", id, ...held(room) });
  }
  const events = calls.map((call) => record(call, "joined"));
  await browser.socket.drop();
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome({ resumed: true, rooms: [held("r1", { peer: "joined" })] });
  assert.deepEqual(browser.socket.all("join").map(({ room }) => room), ["r2"]);
  assert.deepEqual([calls[0].peerState, calls[1].peerState], ["joined", "absent"]);
  await browser.socket.joined();
  assert.deepEqual(events.map(({ length }) => length), [1, 1]);
});

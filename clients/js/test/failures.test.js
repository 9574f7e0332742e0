import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

import { Keepline } from "../keepline.js";
import { FakeClock, settle } from "./helpers/clock.js";
import { fakeBrowser, held, record } from "./helpers/cluster.js";
import { FakePeerConnection, fakeStream } from "./helpers/peer_connection.js";
import { enterRoom, LIMITS, reconnect } from "./helpers/rooms.js";

function start(token = "jwt") {
  const clock = new FakeClock();
  const browser = fakeBrowser(clock);
  const client = new Keepline({ url: "wss://one.example/v1", token }, browser.environment);
  const errors = record(client, "error");
  const welcomed = client.connect();
  welcomed.catch(() => {});
  return { clock, browser, client, errors, welcomed };
}

test("each attempt that fails is told, with what the runtime says about it", async () => {
  const { browser, clock, errors } = start();
  await settle();
  await browser.socket.drop();
  await clock.advance(250);
  browser.socket.onerror({ message: "Unexpected server response: 431" });
  await browser.socket.drop();
  const told = errors.map(([, { code, message, status }]) => [code, message, status]);
  assert.deepEqual(told, [
    [
      "connect_failed",
      "Could not connect to wss://one.example/v1: closed before it was open; the browser does not tell why",
      undefined,
    ],
    ["connect_failed", "Could not connect to wss://one.example/v1: Unexpected server response: 431", 431],
  ]);
  await clock.advance(500);
  await clock.advance(10_000);
  assert.deepEqual([errors[2][1].code, errors.length], ["timeout", 3]);
});

test("a browser that refuses to open a socket at all is told as well, and tried again", async () => {
  const { environment, sockets } = fakeBrowser(new FakeClock());
  let refusals = 1;
  class Refusing extends environment.WebSocket {
    constructor(...options) {
      if (refusals-- > 0) throw new DOMException("mixed content", "SecurityError");
      super(...options);
    }
  }
  const clock = new FakeClock();
  const client = new Keepline({ url: "ws://one/v1", token: "jwt" }, { ...environment, ...clock, WebSocket: Refusing });
  const errors = record(client, "error");
  client.connect();
  await settle();
  assert.deepEqual([errors[0][1].code, errors[0][1].message], [
    "connect_failed",
    "Could not connect to ws://one/v1: mixed content",
  ]);
  await clock.advance(250);
  assert.equal(sockets.length, 1);
});

test("addresses that cannot work and a runtime without WebSocket are refused at once", () => {
  const { environment } = fakeBrowser(new FakeClock());
  for (const url of ["https://one.example", "ws://", "ws:one", "ws://one/#x", "ws://one:99999/", "", undefined, []]) {
    assert.throws(() => new Keepline({ url, token: "jwt" }, environment), TypeError, String(url));
  }
  const without = { ...environment, WebSocket: undefined };
  assert.throws(() => new Keepline({ url: "ws://one/v1", token: "jwt" }, without), /no WebSocket/);
});

test("what the server said about a refused token reaches the app", async () => {
  const { browser, welcomed } = start();
  await settle();
  await browser.socket.accept();
  await browser.socket.refuse("hello", "unauthorized", { message: "the token has expired" });
  await assert.rejects(welcomed, { code: "unauthorized", message: "the token has expired" });
});

test("a hello that is malformed is not repeated for ever", async () => {
  const { browser, welcomed, client } = start();
  await settle();
  await browser.socket.accept();
  await browser.socket.refuse("hello", "bad_request", { message: "token: 1 to 4096 characters" });
  await assert.rejects(welcomed, { code: "bad_request", message: /4096/ });
  assert.equal(client.state, "closed");
});

test("a hello that is queued is waited for as long as the server says so", async () => {
  const { browser, clock, client, welcomed } = start();
  const queue = record(client, "queued");
  await settle();
  await browser.socket.accept();
  for (let ahead = 40; ahead > 0; ahead -= 10) {
    await clock.advance(9_000);
    const { id } = browser.socket.last("hello");
    await browser.socket.say({ type: "queued", id, ahead, wait_ms: ahead * 100 });
  }
  await clock.advance(9_000);
  await browser.socket.welcome();
  await welcomed;
  assert.deepEqual(queue[0], ["queued", { ahead: 40, wait_ms: 4_000 }]);
  assert.deepEqual([queue.length, browser.sockets.length], [4, 1]);
});

test("a queue that falls silent is left", async () => {
  const { browser, clock } = start();
  await settle();
  await browser.socket.accept();
  await browser.socket.say({ type: "queued", ahead: 3, wait_ms: 300 });
  await clock.advance(10_000 + 250);
  assert.equal(browser.sockets.length, 2);
});

test("refusals are not answered by a tighter loop, whatever wakes the client", async () => {
  const { browser, clock } = start();
  await settle();
  for (let round = 0; round < 10; round += 1) {
    await browser.socket.accept();
    await browser.socket.refuse("hello", "unavailable", { retry_after_ms: 5_000 });
    const { window, document } = browser.environment;
    window.dispatchEvent(new Event("online"));
    document.dispatchEvent(new Event("visibilitychange"));
    await clock.advance(4_999);
    assert.equal(browser.sockets.length, round + 1);
    await clock.advance(10_001);
  }
});

test("a user who comes and goes does not hammer a port that is closed", async () => {
  const { browser, clock } = start();
  await settle();
  for (let blink = 0; blink < 100; blink += 1) {
    await browser.socket.drop();
    browser.environment.document.dispatchEvent(new Event("visibilitychange"));
    await clock.advance(10);
  }
  assert.ok(browser.sockets.length <= 5, String(browser.sockets.length));
});

test("a track that is added twice is sent once, and the call goes on", async () => {
  const media = fakeStream("audio", "video");
  const { call } = await enterRoom({ options: { media } });
  call.addTrack(media.getTracks()[0]);
  await call.setMedia(media);
  assert.deepEqual([call.peerConnection.getSenders().length, call.endedReason], [2, null]);
  const early = await enterRoom({ joined: null, options: { media } });
  for (const track of media.getTracks()) early.call.addTrack(track, media);
  await early.browser.socket.joined();
  assert.deepEqual([early.call.peerConnection.getSenders().length, early.call.endedReason], [2, null]);
});

test("ICE servers that the browser refuses end the call with a reason, and give the side back", async () => {
  const { browser, call } = await enterRoom({ joined: null, options: { iceServers: [{ urls: "stn:typo" }] } });
  const errors = record(call, "error");
  const ended = record(call, "ended");
  await browser.socket.joined();
  await browser.socket.ok("leave");
  await assert.rejects(call.ready, { code: "media_failed", message: /stn:typo/ });
  assert.deepEqual([errors.length, ended], [1, [["ended", { reason: "media_failed" }]]]);
});

test("new ICE servers that the browser refuses are told, and the call goes on", async () => {
  const { browser, call } = await enterRoom();
  const errors = record(call, "error");
  await browser.socket.say({ type: "ice", ice_servers: [{ urls: "stn:typo" }] });
  assert.deepEqual([errors[0][1].code, call.endedReason], ["media_failed", null]);
});

test("a probe while the socket is closing ends nothing", async () => {
  for (const limits of [LIMITS, undefined]) {
    const place = await enterRoom({ welcome: { limits } });
    const { browser, clock, call } = place;
    browser.socket.readyState = 2; // CLOSING
    browser.environment.window.dispatchEvent(new Event("online"));
    await settle();
    assert.equal(call.endedReason, null);
    await reconnect(place, { resumed: true, rooms: [held("r")] });
    await clock.advance(1_000);
    assert.equal(call.endedReason, null);
  }
});

test("a listener that throws is the app's own fault, and stops nothing", async () => {
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const { call, client, browser } = await enterRoom({ joined: null });
  call.on("joined", () => {
    throw new Error("from a listener");
  });
  await browser.socket.joined({ peer: "joined" });
  delete globalThis.reportError;
  assert.deepEqual(reported, ["from a listener"]);
  assert.deepEqual([client.state, call.endedReason, browser.socket.all("signal").length], ["connected", null, 1]);
});

test("why a room ended while one was away is the reason of `ended`", async () => {
  const place = await enterRoom();
  const ended = record(place.call, "ended");
  await reconnect(place);
  await place.browser.socket.refuse("join", "room_ended", { reason: "grace_expired" });
  assert.deepEqual(ended, [["ended", { reason: "grace_expired" }]]);
});

test("the SDK runs where there is neither EventTarget nor crypto, as in React Native", async () => {
  const program = `
    for (const name of ["EventTarget", "Event", "CustomEvent", "AbortController", "crypto", "TextEncoder"]) {
      Object.defineProperty(globalThis, name, { value: undefined });
    }
    globalThis.window = globalThis;
    const { Keepline } = await import(${JSON.stringify(new URL("../keepline.js", import.meta.url).href)});
    class WebSocket { static OPEN = 1; readyState = 1; bufferedAmount = 0;
      constructor() { setTimeout(() => this.onopen()); }
      send(text) { const { id, type, room } = JSON.parse(text);
        const answer = type === "hello" ? { type: "welcome", rooms: [] }
          : { type: "joined", room: { room_id: room, messages: [] }, side: 1, polite: false, peer: "joined" };
        setTimeout(() => this.onmessage?.({ data: JSON.stringify({ ...answer, id }) })); }
      close() {} }
    const client = new Keepline({ url: "ws://one/v1", token: "jwt" }, { WebSocket });
    const call = await client.join("r").ready;
    call.send("ä".repeat(30_000));
    console.log(call.roomId);
    client.close();`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program]);
  assert.equal(stdout, "r\n");
});

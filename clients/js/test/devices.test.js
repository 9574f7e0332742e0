import assert from "node:assert/strict";
import { test } from "node:test";

import { record } from "./helpers/cluster.js";
import { fakeStream } from "./helpers/peer_connection.js";
import { enterRoom, fromPeer, reconnect, signals } from "./helpers/rooms.js";
import { settle } from "./helpers/clock.js";

test("a device whose session another one took over gives way when it comes back by itself", async () => {
  const { browser, client, clock, call } = await enterRoom();
  await browser.socket.drop();
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.drop(4409);
  await clock.advance(60_000);
  assert.deepEqual([client.state, call.endedReason, browser.sockets.length], ["closed", "replaced", 2]);
});

test("the phone that takes its side back from the laptop is heard, and gets media of its own", async () => {
  const { browser, call } = await enterRoom({ options: { media: fakeStream("video") } });
  const data = record(call, "data");
  await browser.socket.say(fromPeer("phone", 1, { here: null }));
  await browser.socket.say({ type: "peer", room: "r", state: "reconnected" });
  await browser.socket.say(fromPeer("laptop", 1, { here: null }));
  const withLaptop = call.peerConnection;
  await browser.socket.say({ type: "peer", room: "r", state: "reconnected" });
  assert.ok(signals(browser.socket).some(({ here }) => here === "laptop"));
  await browser.socket.say(fromPeer("phone", 2, { here: null }));
  await browser.socket.say(fromPeer("phone", 3, { app: "hello again" }));
  assert.deepEqual(data, [["data", "hello again"]]);
  assert.notEqual(call.peerConnection, withLaptop);
});

test("one who hears that the peer has talked to another device begins with another RTCPeerConnection", async () => {
  const place = await enterRoom({ options: { media: fakeStream("video") } });
  const { browser, call } = place;
  await settle();
  await browser.socket.say(fromPeer("b", 1, { here: null }));
  const description = { type: "answer", sdp: "v=0\r\na=ice-ufrag:x\r\na=tracks:t\r\n" };
  await browser.socket.say(fromPeer("b", 2, { description }));
  const before = call.peerConnection;
  assert.equal(before.signalingState, "stable");
  await reconnect(place);
  await browser.socket.joined({ peer: "joined" });
  await browser.socket.say(fromPeer("b", 3, { here: "laptop" }));
  assert.notEqual(call.peerConnection, before);
  assert.ok(before.closed);
  assert.ok(signals(browser.socket).some(({ description: offer }) => offer?.type === "offer"));
});

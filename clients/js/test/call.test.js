import assert from "node:assert/strict";
import { test } from "node:test";

import { Keepline } from "../keepline.js";
import { FakeClock, settle } from "./helpers/clock.js";
import { fakeBrowser, held, record } from "./helpers/cluster.js";
import { FakePeerConnection, fakeStream } from "./helpers/peer_connection.js";

async function inRoom(options = {}, fields = {}) {
  const clock = new FakeClock();
  const browser = fakeBrowser(clock);
  const url = ["ws://one.example/v1", "ws://two.example/v1"];
  const client = new Keepline({ url, token: "jwt" }, browser.environment);
  const call = client.join("r", options);
  await settle();
  await browser.socket.accept();
  await browser.socket.welcome({ ice_servers: [{ urls: "stun:one" }] });
  await browser.socket.joined(fields);
  return { clock, browser, client, call };
}

async function comeBack({ browser, clock }, fields) {
  await browser.socket.drop();
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome();
  await browser.socket.joined(fields);
}

const signals = (socket) => socket.all("signal").map(({ data }) => data);
const fromPeer = (stream, n, data) => ({ type: "signal", room: "r", stream, n, data });

test("join is answered by ready and joined, with history in the snapshot", async () => {
  const { call } = await inRoom({}, { side: 2, polite: true, peer: "joined" });
  assert.equal(await call.ready, call);
  assert.deepEqual([call.side, call.polite, call.peerState], [2, true, "joined"]);
});

test("a room that cannot be joined ends the call with the reason", async () => {
  for (const code of ["room_ended", "room_not_found", "not_a_member"]) {
    const { browser, client } = await inRoom();
    const call = client.join("other");
    const events = record(call, "ended");
    await browser.socket.refuse("join", code);
    await assert.rejects(call.ready, { code });
    assert.deepEqual(events, [["ended", { reason: code }]]);
  }
});

test("a join refused as unavailable is tried again when the server says", async () => {
  const { browser, client, clock } = await inRoom();
  const call = client.join("other");
  await browser.socket.refuse("join", "unavailable", { retry_after_ms: 2_000 });
  await clock.advance(2_250);
  await browser.socket.joined();
  assert.equal((await call.ready).roomId, "other");
});

test("a join without an answer is tried again", async () => {
  const { browser, client, clock } = await inRoom();
  const call = client.join("other");
  await clock.advance(10_250);
  assert.equal(browser.socket.all("join").filter(({ room }) => room === "other").length, 2);
  await browser.socket.joined();
  assert.equal((await call.ready).roomId, "other");
});

test("the same room is joined once", async () => {
  const { client, call } = await inRoom();
  assert.equal(client.join("r"), call);
});

test("chat resolves with the stored message and tells what the peer writes", async () => {
  const { browser, call } = await inRoom();
  const events = record(call, "chat");
  const sent = call.chat("hi");
  await settle();
  const message = { seq: 1, from: "alice", text: "hi", at: 5 };
  await browser.socket.ok("chat", { message });
  assert.deepEqual(await sent, message);
  const answer = { seq: 2, from: "bob", text: "hello", at: 6 };
  await browser.socket.say({ type: "chat", room: "r", message: answer });
  assert.deepEqual(events, [["chat", { message: answer, own: false }]]);
});

test("messages missed while away are told after the reconnect, each once", async () => {
  const place = await inRoom();
  const events = record(place.call, "chat");
  const messages = [1, 2, 3].map((seq) => ({ seq, from: seq === 2 ? "alice" : "bob", text: `m${seq}`, at: seq }));
  await place.browser.socket.say({ type: "chat", room: "r", message: messages[0] });
  const { room } = held("r");
  await comeBack(place, { room: { ...room, messages } });
  assert.deepEqual(events.map(([, { message, own }]) => [message.seq, own]), [[1, false], [2, true], [3, false]]);
});

test("a request without connection waits for the next one, up to a limit of time and number", async () => {
  const { browser, call, clock } = await inRoom();
  await browser.socket.drop();
  const waiting = call.chat("later");
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome();
  await browser.socket.joined();
  await browser.socket.ok("chat", { message: { seq: 1, from: "alice", text: "later", at: 1 } });
  assert.equal((await waiting).text, "later");

  await browser.socket.drop();
  const requests = Array.from({ length: 33 }, () => call.chat("much"));
  const outcomes = Promise.allSettled(requests);
  await clock.advance(10_000);
  const codes = (await outcomes).map(({ reason }) => reason.code);
  assert.deepEqual([codes.filter((code) => code === "timeout").length, codes[32]], [32, "queue_full"]);
});

test("a request whose connection breaks is refused, not repeated", async () => {
  const place = await inRoom();
  const refused = assert.rejects(place.call.chat("once"), { code: "connection_lost" });
  await settle();
  await comeBack(place);
  await refused;
  assert.equal(place.browser.socket.all("chat").length, 0);
});

test("a report is a request of its own, also when the call has ended", async () => {
  const { browser, call, client } = await inRoom();
  const sent = call.report("rude");
  await settle();
  const { id: _, ...frame } = browser.socket.last("report");
  assert.deepEqual(frame, { type: "report", room: "r", reason: "rude" });
  await browser.socket.ok("report");
  assert.equal(await sent, undefined);

  await browser.socket.say({ type: "ended", room: "r", reason: "hangup" });
  const refused = assert.rejects(call.report("again"), { code: "rate_limited", retryAfterMs: 7 });
  await settle();
  await browser.socket.refuse("report", "rate_limited", { room: "r", retry_after_ms: 7 });
  await refused;

  const other = client.report("long ago", "rude");
  await settle();
  assert.equal(browser.socket.last("report").room, "long ago");
  await browser.socket.ok("report");
  await other;
});

test("a report waits for the connection, but not for ever, and not for a client that is closed", async () => {
  const { browser, call, client, clock } = await inRoom();
  await browser.socket.drop();
  const waiting = call.report("rude");
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome();
  await settle();
  await browser.socket.ok("report");
  await waiting;

  await browser.socket.drop();
  const late = assert.rejects(call.report("rude"), { code: "timeout" });
  await clock.advance(10_000);
  await late;
  const closed = assert.rejects(call.report("rude"), { code: "closed" });
  client.close();
  await closed;
  await assert.rejects(call.report("rude"), { code: "closed" });
});

test("custom data goes both ways; what is queued while away is limited and sent after the rejoin", async () => {
  const place = await inRoom({}, { peer: "joined" });
  const events = record(place.call, "data");
  place.call.send({ node: "n1" });
  assert.deepEqual(place.browser.socket.last("signal").data, { app: { node: "n1" } });
  await place.browser.socket.say(fromPeer("b", 1, { app: [1] }));
  await place.browser.socket.say(fromPeer("b", 1, { app: [1] }));
  assert.deepEqual(events, [["data", [1]]]);

  await place.browser.socket.drop();
  const outcomes = Promise.allSettled(Array.from({ length: 300 }, (_, i) => place.call.send(i)));
  await place.clock.advance(250);
  await place.browser.socket.accept();
  await place.browser.socket.welcome();
  assert.deepEqual(signals(place.browser.socket), []);
  await place.browser.socket.joined({ peer: "joined" });
  await place.clock.advance(4_000);
  const sent = place.browser.socket.all("signal");
  assert.equal(sent.length, 1 + 256);
  assert.deepEqual([sent[0].data.here, sent[1].data.app, sent[256].data.app], ["b", 0, 255]);
  assert.ok(sent.every((frame, i) => i === 0 || frame.n === sent[i - 1].n + 1));
  const codes = (await outcomes).map(({ reason }) => reason?.code);
  assert.deepEqual(codes, [...Array(256).fill(undefined), ...Array(44).fill("queue_full")]);
});

test("what is larger than a frame is refused before it is sent", async () => {
  const { call, browser } = await inRoom();
  await assert.rejects(call.send("x".repeat(70_000)), { code: "too_large" });
  await assert.rejects(call.send("ä".repeat(33_000)), { code: "too_large" });
  assert.equal(browser.socket.closedWith, undefined);
});

test("typing is told at most once a second", async () => {
  const { call, browser, clock } = await inRoom({}, { peer: "joined" });
  call.typing();
  call.typing();
  await clock.advance(1_000);
  call.typing();
  assert.equal(browser.socket.all("typing").length, 2);
});

test("notes introduce both instances, and only whoever is not known answers", async () => {
  const { browser } = await inRoom({}, { peer: "joined" });
  const [{ stream, data }] = browser.socket.all("signal");
  assert.deepEqual(data, { here: null });
  await browser.socket.say(fromPeer("b", 1, { here: null }));
  assert.deepEqual(signals(browser.socket), [{ here: null }, { here: "b" }]);
  await browser.socket.say(fromPeer("b", 2, { here: stream }));
  assert.equal(signals(browser.socket).length, 2);
});

test("media is offered when the peer comes, addressed to its instance once that is known", async () => {
  const { browser, call } = await inRoom({ media: fakeStream("audio", "video") });
  assert.equal(call.peerConnection.configuration.iceServers[0].urls, "stun:one");
  assert.deepEqual(signals(browser.socket), []);
  await browser.socket.say({ type: "peer", room: "r", state: "joined" });
  const [note, offer] = signals(browser.socket);
  assert.deepEqual([note, offer.description.type, offer.to], [{ here: null }, "offer", undefined]);
  await browser.socket.say(fromPeer("b", 1, { description: { type: "answer", sdp: "v=0\r\na=tracks:\r\n" } }));
  assert.equal(call.peerConnection.signalingState, "stable");
  call.addTrack(fakeStream("video").getTracks()[0]);
  await settle();
  assert.equal(signals(browser.socket).findLast((data) => data.description).to, "b");
});

test("a reloaded peer gets a new RTCPeerConnection with the same tracks", async () => {
  const { browser, call } = await inRoom({ media: fakeStream("video") }, { peer: "joined" });
  const changes = record(call, "peerchanged");
  const first = call.peerConnection;
  await browser.socket.say(fromPeer("b", 1, { here: null }));
  await browser.socket.say(fromPeer("b", 2, { description: { type: "offer", sdp: "v=0" }, to: "somebody else" }));
  assert.equal(first.remoteDescription, null);
  await browser.socket.say(fromPeer("c", 1, { here: null }));
  const second = call.peerConnection;
  assert.notEqual(first, second);
  assert.ok(first.closed);
  assert.deepEqual(second.getSenders().map((s) => s.track.id), first.getSenders().map((s) => s.track.id));
  assert.deepEqual(changes, [["peerchanged", { stream: "c" }]]);
  const offer = browser.socket.all("signal").findLast(({ data }) => data.description).data;
  assert.deepEqual([offer.to, offer.description], ["c", second.localDescription && { ...second.localDescription }]);
});

test("an RTCPeerConnection of the app is neither configured, replaced nor closed", async () => {
  const own = new FakePeerConnection({ iceServers: [] });
  const { browser, call } = await inRoom({ peerConnection: own }, { peer: "joined" });
  const next = new FakePeerConnection();
  await browser.socket.say({ type: "ice", ice_servers: [{ urls: "turn:two" }] });
  await browser.socket.say(fromPeer("b", 1, { here: null }));
  await browser.socket.say(fromPeer("c", 1, { here: null }));
  assert.equal(call.peerConnection, own);
  call.on("peerchanged", () => call.usePeerConnection(next));
  await browser.socket.say(fromPeer("d", 1, { description: { type: "offer", sdp: "v=0\r\na=tracks:t1\r\n" } }));
  assert.equal(call.peerConnection, next);
  assert.deepEqual(next.remoteTracks, ["t1"]);
  await browser.socket.say({ type: "ended", room: "r", reason: "duration" });
  assert.deepEqual([own.closed, next.closed, own.configuration], [false, false, { iceServers: [] }]);
});

test("a peer without SDK that left and came again is met with a new RTCPeerConnection", async () => {
  const { browser, call } = await inRoom({}, { peer: "joined" });
  const first = call.peerConnection;
  const description = { type: "offer", sdp: "v=0\r\na=tracks:t\r\n" };
  await browser.socket.say({ type: "signal", room: "r", data: { description } });
  assert.deepEqual(first.remoteTracks, ["t"]);
  await browser.socket.say({ type: "peer", room: "r", state: "left" });
  await browser.socket.say({ type: "peer", room: "r", state: "joined" });
  assert.notEqual(call.peerConnection, first);
});

test("new TURN credentials reach the RTCPeerConnection", async () => {
  const { browser, client, call } = await inRoom();
  const events = record(client, "ice");
  await browser.socket.say({ type: "ice", ice_servers: [{ urls: "turn:two" }] });
  assert.equal(call.peerConnection.configuration.iceServers[0].urls, "turn:two");
  assert.equal(events.length, 1);
});

test("media survives a reconnect, and ICE is restarted when it broke meanwhile", async () => {
  const place = await inRoom({ media: fakeStream("video") }, { peer: "joined" });
  const pc = place.call.peerConnection;
  await place.browser.socket.say(fromPeer("b", 1, { description: { type: "answer", sdp: "v=0\r\na=tracks:\r\n" } }));
  pc.setIceState("connected");
  await comeBack(place, { peer: "joined" });
  assert.equal(place.call.peerConnection, pc);
  assert.deepEqual(signals(place.browser.socket), [{ here: "b" }]);
  pc.setIceState("disconnected");
  await comeBack({ ...place, clock: { advance: () => place.clock.advance(500) } }, { peer: "joined" });
  assert.ok(signals(place.browser.socket).some((data) => data.description?.type === "offer"));
});

test("setMedia replaces tracks of the same kind without a new offer", async () => {
  const { call } = await inRoom({ media: fakeStream("audio", "video") });
  const sent = () => call.peerConnection.getSenders().map((sender) => sender.track?.kind);
  const screen = fakeStream("video");
  await call.setMedia(screen);
  assert.deepEqual(sent(), [undefined, "video"]);
  assert.equal(call.peerConnection.getSenders()[1].track, screen.getTracks()[0]);
  await call.setMedia(null);
  assert.deepEqual(sent(), [undefined, undefined]);
});

test("the state of the peer is followed", async () => {
  const { browser, call } = await inRoom();
  const seen = [];
  call.on("peer", ({ state }) => seen.push([state, call.peerState]));
  for (const state of ["joined", "reconnecting", "reconnected", "away", "left"]) {
    await browser.socket.say({ type: "peer", room: "r", state });
  }
  assert.deepEqual(seen, [
    ["joined", "joined"],
    ["reconnecting", "reconnecting"],
    ["reconnected", "joined"],
    ["away", "away"],
    ["left", "left"],
  ]);
});

test("text becomes video by request and acceptance, also when the acceptance was missed", async () => {
  const text = { ...held("r").room, chat_mode: "text" };
  const asking = await inRoom({}, { room: text });
  const requested = asking.call.requestVideo();
  await settle();
  await asking.browser.socket.ok("mode");
  await requested;
  await asking.browser.socket.say({ type: "mode", room: "r", action: "accept" });
  assert.equal(asking.call.room.chat_mode, "video");

  const accepting = await inRoom({}, { room: text });
  const accepted = accepting.call.acceptVideo();
  await settle();
  await accepting.browser.socket.ok("mode");
  await accepted;
  assert.equal(accepting.call.room.chat_mode, "video");

  const missing = await inRoom({}, { room: text });
  const events = record(missing.call, "mode");
  await comeBack(missing);
  assert.deepEqual(events, [["mode", { action: "accept" }]]);
});

test("warnings are handed on", async () => {
  const { browser, call } = await inRoom();
  const events = record(call, "inactivity", "ending", "typing");
  await browser.socket.say({ type: "inactivity", room: "r", state: "warning", ends_in_ms: 60_000 });
  await browser.socket.say({ type: "ending", room: "r", ends_in_ms: 30_000 });
  await browser.socket.say({ type: "typing", room: "r" });
  assert.deepEqual(events, [
    ["inactivity", { state: "warning", ends_in_ms: 60_000 }],
    ["ending", { ends_in_ms: 30_000 }],
    ["typing", {}],
  ]);
});

test("hanging up stops media at once and ends the call once", async () => {
  const { browser, call } = await inRoom({ media: fakeStream("video") });
  const pc = call.peerConnection;
  const events = record(call, "ended");
  const done = call.hangUp();
  assert.ok(pc.closed);
  await settle();
  await browser.socket.ok("end");
  await browser.socket.say({ type: "ended", room: "r", reason: "hangup" });
  await done;
  assert.deepEqual(events, [["ended", { reason: "hangup" }]]);
});

test("hanging up while away is told after the reconnect, without opening media again", async () => {
  const place = await inRoom();
  await place.browser.socket.drop();
  const done = place.call.hangUp();
  await place.clock.advance(250);
  await place.browser.socket.accept();
  await place.browser.socket.welcome();
  await place.browser.socket.joined({ peer: "joined" });
  assert.equal(place.call.peerConnection, null);
  await place.browser.socket.ok("end");
  await done;
  assert.equal(place.call.endedReason, "hangup");
});

test("leaving steps out; the room can be joined again", async () => {
  const { browser, client, call } = await inRoom();
  const done = call.leave();
  await settle();
  await browser.socket.ok("leave");
  await done;
  assert.equal(call.endedReason, "left");
  assert.notEqual(client.join("r"), call);
});

test("hanging up a room that is over already is no error, and nothing can be sent after the end", async () => {
  const { browser, call } = await inRoom();
  const done = call.hangUp();
  await settle();
  await browser.socket.refuse("end", "room_ended");
  await done;
  await assert.rejects(call.chat("too late"), { code: "room_ended" });
  call.send("too late");
  assert.equal(browser.socket.all("signal").length, 0);
});

test("glare before anything was agreed on: the polite side answers with another RTCPeerConnection", async () => {
  const media = fakeStream("video");
  const { browser, call } = await inRoom({ media }, { side: 2, polite: true, peer: "joined" });
  await settle();
  const taken = call.peerConnection;
  const used = [];
  call.on("peerconnection", ({ peerConnection }) => used.push(peerConnection));
  assert.equal(taken.signalingState, "have-local-offer");
  const ufrag = "theirs";
  const offer = { type: "offer", sdp: `v=0\r\na=ice-ufrag:${ufrag}\r\na=tracks:t\r\n` };
  const candidate = { candidate: "candidate:1", sdpMid: "0", usernameFragment: ufrag };
  browser.socket.say(fromPeer("s", 1, { description: offer }));
  await browser.socket.say(fromPeer("s", 2, { candidate }));
  const { signalingState, remoteTracks, candidates } = call.peerConnection;
  assert.ok(call.peerConnection !== taken);
  assert.equal(used.length, 1);
  assert.ok(used[0] === call.peerConnection);
  assert.ok(taken.closed);
  assert.deepEqual([signalingState, remoteTracks, candidates], ["stable", ["t"], [candidate]]);
  assert.equal(signals(browser.socket).findLast(({ description }) => description).description.type, "answer");
  const sent = signals(browser.socket).length;
  await settle();
  assert.equal(signals(browser.socket).length, sent);
});

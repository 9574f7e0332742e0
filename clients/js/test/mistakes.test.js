import assert from "node:assert/strict";
import { test } from "node:test";

import { enterRoom, LIMITS } from "./helpers/rooms.js";

const ROCKET = "🚀";
const HALF = ROCKET.slice(0, 1);

test("text that the server would refuse is refused at once, and nothing is sent", async () => {
  const { browser, call, client } = await enterRoom();
  const mistakes = ["", "x".repeat(501), `cut through ${HALF}`, "nul \0", ROCKET.repeat(501), 7, undefined];
  for (const text of mistakes) {
    await assert.rejects(call.chat(text), { code: "bad_request" }, String(text).slice(0, 20));
    await assert.rejects(call.report(text), { code: "bad_request" });
    await assert.rejects(client.report("r", text), { code: "bad_request" });
  }
  assert.deepEqual([...browser.socket.all("chat"), ...browser.socket.all("report")], []);
});

test("a character outside the basic plane counts once, and an escape that only looks like half of one is fine", async () => {
  const { browser, call } = await enterRoom();
  for (const text of [ROCKET.repeat(500), "\\ud83d", "\\\\ud83d"]) {
    call.chat(text).catch(() => {});
    assert.equal(browser.socket.last("chat")?.text, text);
  }
  await assert.rejects(call.send({ deep: [HALF] }), { code: "bad_request" });
  await assert.rejects(call.send({ [HALF]: 1 }), { code: "bad_request" });
});

test("the server says how long a text and a frame may be", async () => {
  const { call } = await enterRoom({ welcome: { limits: { ...LIMITS, chat_length: 10, frame_bytes: 1_024 } } });
  await assert.rejects(call.chat("01234567890"), /11 characters; 1 to 10/);
  await assert.rejects(call.send("x".repeat(1_000)), { code: "too_large" });
  call.send("x".repeat(500));
});

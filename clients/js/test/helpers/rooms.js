import { Keepline } from "../../keepline.js";
import { FakeClock, settle } from "./clock.js";
import { fakeBrowser } from "./cluster.js";

export const LIMITS = { frames_per_second: 50, frames_burst: 200, frame_bytes: 65_536, chat_length: 500, ping_ms: 8_000 };

/** A client that was welcomed with `welcome`, and holds room `r` as `joined` says. */
export async function enterRoom({ options = {}, welcome = { limits: LIMITS }, joined = { peer: "joined" }, token = "jwt" } = {}) {
  const clock = new FakeClock();
  const browser = fakeBrowser(clock);
  const url = ["ws://one.example/v1", "ws://two.example/v1"];
  const client = new Keepline({ url, token }, browser.environment);
  const call = client.join("r", options);
  await settle();
  await browser.socket.accept();
  await browser.socket.welcome(welcome);
  if (joined) await browser.socket.joined(joined);
  return { clock, browser, client, call };
}

/** Has the connection break and the next one be welcomed. */
export async function reconnect({ browser, clock }, welcome = { limits: LIMITS }) {
  await browser.socket.drop();
  await clock.advance(250);
  await browser.socket.accept();
  await browser.socket.welcome(welcome);
}

/** The data of the signals that a socket was given, or the app's part of them. */
export const signals = (socket) => socket.all("signal").map(({ data }) => data);
export const appSignals = (socket) => signals(socket).filter((data) => "app" in data).map(({ app }) => app);
export const fromPeer = (stream, n, data) => ({ type: "signal", room: "r", stream, n, data });

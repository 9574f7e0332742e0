"""Pages of Chromium that use the browser SDK as an app does, or do without it, under the hands of a test.

    async with sdk_page(browser, cluster.demo) as page:
        await page.enter(side, media=True)
        await page.until("call.peerState === 'joined'", what="the peer is there")

In the page, `client` and `call` are what `enter` made, `told` is every event of both in order, as `[name, detail]`.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page

from tests.helpers.browsers import Side
from tests.helpers.waiting import eventually

PAGE_SECONDS = 15.0
MEDIA_SECONDS = 40.0

_PRELUDE = """
window.told = [];
window.peerConnections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(configuration = {}) {
    super({ ...configuration, iceTransportPolicy: window.relayOnly ? "relay" : "all" });
    peerConnections.push(this);
  }
};
const CLIENT_EVENTS = ["state", "queued", "error"];
const CALL_EVENTS = ["joined", "peer", "peerchanged", "track", "connectionstate", "data", "ended", "error"];
const plain = (detail) => detail instanceof Error ? { code: detail.code, message: detail.message }
  : detail?.track ? { kind: detail.track.kind, id: detail.track.id } : detail;
const record = (emitter, names) =>
  names.forEach((name) => emitter.on(name, (detail) => told.push([name, plain(detail)])));

window.camera = () => navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } });

window.connect = async ({ urls, token }) => {
  const { Keepline } = await import("/keepline.js");
  window.client = new Keepline({ url: urls, token });
  record(client, CLIENT_EVENTS);
};

window.join = (room, options = {}) => {
  window.call = client.join(room, options);
  record(call, CALL_EVENTS);
};

window.framesDecoded = async () => {
  const reports = [...(await peerConnections.at(-1)?.getStats() ?? new Map()).values()];
  const videos = reports.filter(({ type, kind }) => type === "inbound-rtp" && kind === "video");
  return videos.reduce((sum, { framesDecoded }) => sum + framesDecoded, 0);
};

// A client that has read docs/protocol.md and knows no SDK: perfect negotiation, and no ICE restart of its own.
window.enterBare = async ({ urls, token, room }) => {
  const media = await camera();
  const socket = new WebSocket(urls[0], ["keepline.v1"]);
  const send = (frame) => socket.send(JSON.stringify(frame));
  const signal = (data) => send({ type: "signal", room, data });
  let pc, polite, makingOffer = false, ignoring = false;
  const begin = async (iceServers) => {
    pc = new RTCPeerConnection({ iceServers });
    pc.onnegotiationneeded = async () => {
      makingOffer = true;
      await pc.setLocalDescription().finally(() => (makingOffer = false));
      signal({ description: pc.localDescription });
    };
    pc.onicecandidate = ({ candidate }) => candidate && signal({ candidate });
    media.getTracks().forEach((track) => pc.addTrack(track, media));
  };
  const take = async ({ description, candidate }) => {
    if (candidate) return pc.addIceCandidate(candidate).catch((error) => { if (!ignoring) throw error; });
    if (!description) return;
    ignoring = description.type === "offer" && (makingOffer || pc.signalingState !== "stable") && !polite;
    if (ignoring) return;
    await pc.setRemoteDescription(description);
    if (description.type !== "offer") return;
    await pc.setLocalDescription();
    signal({ description: pc.localDescription });
  };
  let iceServers, done = Promise.resolve();
  socket.onopen = () => send({ type: "hello", id: 1, token });
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    told.push([frame.type, frame]);
    if (frame.type === "welcome") { iceServers = frame.ice_servers; send({ type: "join", id: 2, room }); }
    if (frame.type === "joined") polite = frame.polite;
    if (frame.type === "signal") done = done.then(() => take(frame.data));
    if (!pc && (frame.peer === "joined" || frame.state === "joined")) done = begin(iceServers);
  };
};
"""


class SdkPage:
    """A page whose script is the test's. Expressions are JavaScript and may await."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def connect(self, side: Side) -> None:
        """Make the page's `client`, which connects when it joins."""
        await self._page.evaluate("connect", {"urls": side.urls, "token": side.token})

    async def enter(self, side: Side, *, media: bool = False) -> None:
        """Join the room of `side` with the SDK, with a camera if `media`, and wait until it is held."""
        await self.connect(side)
        options = "{ media: await camera() }" if media else "{}"
        await self.run(f"join({json.dumps(side.room)}, {options}); await call.ready")

    async def enter_without_sdk(self, side: Side) -> None:
        """Join the room of `side` with a client of its own, with a camera."""
        values = {"urls": side.urls, "token": side.token, "room": side.room}
        await self._page.evaluate("enterBare", values)

    async def run(self, statements: str) -> None:
        """Run statements in the page."""
        await self._page.evaluate(f"async () => {{ {statements} }}")

    async def get(self, expression: str) -> Any:
        """What an expression is in the page."""
        return await self._page.evaluate(f"async () => ({expression})")

    async def until(self, condition: str, *, what: str, timeout: float = PAGE_SECONDS) -> None:
        """Wait until a condition holds in the page."""

        async def holds() -> bool:
            if await self.get(condition):
                return True
            raise AssertionError(await self.get("told.slice(-12)"))

        await eventually(holds, timeout=timeout, interval=0.1, what=what)

    async def told(self, name: str) -> list[Any]:
        """The details of all events of this name until now."""
        found: list[Any] = await self.get(
            f"told.filter(([name]) => name === {json.dumps(name)}).map(([, it]) => it)"
        )
        return found

    async def sees_video(self, more_frames: int = 5, timeout: float = MEDIA_SECONDS) -> None:
        """Wait until so many more frames of the other side have been decoded."""
        frames = int(await self.get("framesDecoded()")) + more_frames
        await self.until(f"await framesDecoded() >= {frames}", what="video is decoded", timeout=timeout)

    async def reload(self) -> None:
        """Press the browser's reload button: the page forgets everything."""
        await self._page.reload()

    async def leave_page(self) -> None:
        """Go to another page, as a visitor does who is done."""
        await self._page.goto("about:blank")


@asynccontextmanager
async def sdk_page(browser: Browser, origin: str, *, relay_only: bool = False) -> AsyncIterator[SdkPage]:
    """A page of its own browser context, loaded from `origin`, which serves the SDK."""
    context = await browser.new_context(bypass_csp=True)  # the policy of the page binds its own scripts
    try:
        context.set_default_timeout(PAGE_SECONDS * 1000)
        await context.add_init_script(f"window.relayOnly = {json.dumps(relay_only)};{_PRELUDE}")
        page = await context.new_page()
        await page.goto(origin)
        yield SdkPage(page)
    finally:
        await context.close()

"""The system's Chromium on the demo page: what a visitor sees and does, and what their browser decodes.

    async with chromium() as browser:
        async with demo_page(browser, cluster.demo) as alice:
            await alice.start_call()
            async with demo_page(browser, await alice.invitation()) as bob:
                await alice.sees_video()

Camera and microphone are Chromium's own test pictures. Media goes over loopback, so no network is needed.
"""

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, ViewportSize, async_playwright

from tests.helpers.waiting import eventually

WIDE = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=360, height=740)

# Chromium draws and encodes on the CPU here; the first picture may take a while on a busy machine.
MEDIA_SECONDS = 30.0
PAGE_SECONDS = 15.0

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    # Else addresses hide behind names that need multicast DNS, which loopback does not have.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    # Pages in the background must go on drawing: one of two always is.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)

# Keeps what the page itself need not: its RTCPeerConnections, and each state that it ever showed.
_WATCH = """
window.watched = { connections: [], states: {} };
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...options) {
    super(...options);
    watched.connections.push(this);
  }
};
new MutationObserver((changes) => {
  for (const { target } of changes) (watched.states[target.id] ??= []).push(target.dataset.state);
}).observe(document, { subtree: true, attributeFilter: ["data-state"] });
"""

_RELAY_ONLY = """
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(configuration = {}) {
    super({ ...configuration, iceTransportPolicy: "relay" });
  }
};
"""

_CANDIDATES_IN_USE = """async () => {
  const reports = await watched.connections.at(-1).getStats();
  const { selectedCandidatePairId } = [...reports.values()].find(({ type }) => type === "transport");
  const { localCandidateId, remoteCandidateId } = reports.get(selectedCandidatePairId);
  return [localCandidateId, remoteCandidateId].map((id) => reports.get(id).candidateType);
}"""

_FRAMES_DECODED = """async () => {
  const reports = [...(await watched.connections.at(-1)?.getStats() ?? new Map()).values()];
  const video = reports.find(({ type, kind }) => type === "inbound-rtp" && kind === "video");
  return video?.framesDecoded ?? 0;
}"""

_ICE_FRAGMENT = """(which) =>
  /a=ice-ufrag:(\\S+)/.exec(watched.connections.at(-1)?.[which]?.sdp)?.[1] ?? null"""

_SHOWS_PICTURES = """() => {
  const video = document.querySelector("#remote-video");
  return video.videoWidth > 0 && !video.paused && video.currentTime > 0;
}"""

_VIOLATIONS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ target }) => target).join(", ")}`);
}"""

_FITS = """() => {
  const { scrollWidth, clientWidth, scrollHeight, clientHeight } = document.documentElement;
  const end = document.querySelector("main").getBoundingClientRect().bottom + scrollY;
  return scrollWidth <= clientWidth && scrollHeight <= Math.max(clientHeight, Math.ceil(end));
}"""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a call, as the demo's server hands it out. `urls` are the nodes, the preferred one first."""

    room: str
    user: str
    token: str
    urls: list[str]

    @classmethod
    def of_seat(cls, seat: dict[str, Any]) -> "Side":
        """Read a seat that the demo's server gave."""
        return cls(seat["room"], seat["user"], seat["token"], seat["urls"])


async def take_seat(http: aiohttp.ClientSession, link: str) -> Side:
    """Accept an invitation with a program in the place of a page."""
    origin, _, code = link.rpartition("/c/")
    async with http.post(f"{origin}/demo/calls/{code}/seat", json={}) as response:
        assert response.status == 200, await response.text()
        return Side.of_seat(await response.json())


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running Chromium; fails the test with one line where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(
            "chromium is missing: install it (Debian, Ubuntu: apt-get install chromium)", pytrace=False
        )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def demo_page(
    browser: Browser,
    url: str,
    viewport: ViewportSize = WIDE,
    *,
    relay_only: bool = False,
    script: str = "",
    **options: Any,
) -> AsyncIterator["DemoPage"]:
    """The demo page in a browser context of its own: another visitor, who closes it in the end.

    `relay_only`: media goes through a TURN server or not at all, as behind a strict firewall. `script` runs before
    the page's own. `options` are those of the context.
    """
    context = await browser.new_context(viewport=viewport, **options)
    try:
        context.set_default_timeout(PAGE_SECONDS * 1000)
        await context.add_init_script(_WATCH)
        if relay_only:
            await context.add_init_script(_RELAY_ONLY)
        if script:
            await context.add_init_script(script)
        page = DemoPage(await context.new_page())
        await page.go(url)
        yield page
    finally:
        await context.close()


class DemoPage:
    """The demo page in front of one visitor. `complaints` holds every warning and error of its console."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.complaints: list[str] = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"warning", "error"}:
            self.complaints.append(message.text)

    async def go(self, url: str) -> None:
        """Open `url` in this page's place."""
        await self._page.goto(url)

    async def reload(self) -> None:
        """Press the browser's reload button."""
        await self._page.reload()

    async def start_call(self) -> None:
        """Press "Start a call"."""
        await self._page.click("#start")

    async def join(self) -> None:
        """Accept an invitation."""
        await self._page.click("#join")

    async def invitation(self) -> str:
        """The link to send to the other side, once the page shows it."""
        return await eventually(
            lambda: self._page.input_value("#invite"),
            timeout=PAGE_SECONDS,
            what="the page shows an invite link",
        )

    async def join_when_free(self) -> None:
        """Accept an invitation to a seat that somebody else has just left."""
        await self.join()

        async def is_in() -> bool:
            if await self.is_visible("ended"):
                await self.press("rejoin")
            return await self.is_visible("call")

        await eventually(is_in, timeout=MEDIA_SECONDS, interval=1.0, what="the seat is free")

    @asynccontextmanager
    async def duplicate(self) -> AsyncIterator["DemoPage"]:
        """The same visitor in another tab, made by the browser's "Duplicate tab"."""
        kept = await self._page.evaluate("({ ...sessionStorage })")
        page = await self._page.context.new_page()
        try:
            await page.add_init_script(f"Object.assign(sessionStorage, {json.dumps(kept)});")
            other = DemoPage(page)
            await other.go(self._page.url)
            yield other
        finally:
            await page.close()

    async def press(self, button: str) -> None:
        """Press the button with this id."""
        await self._page.click(f"#{button}")

    async def escape(self) -> None:
        """Press Escape."""
        await self._page.keyboard.press("Escape")

    async def focus(self) -> str:
        """The id of the element that has the focus."""
        found: str = await self._page.evaluate("document.activeElement.id")
        return found

    async def places(self, text: str) -> None:
        """Wait until this stands on the stage in the place of the picture."""

        async def does() -> bool:
            found = await self.text("placard-text") if await self.is_visible("placard") else ""
            assert found == text, found
            return True

        await eventually(does, timeout=MEDIA_SECONDS, what=f"the stage says: {text}")

    async def choose_device(self, select: str, index: int) -> None:
        """Choose the n-th device of a kind under "Devices"."""
        await self._page.click("#devices-open")
        await self._page.select_option(f"#{select}", index=index)
        await self._page.click("#devices-dialog [value=done]")

    async def turn(self, scheme: Literal["light", "dark"]) -> None:
        """Look at the page in light or in dark."""
        await self._page.emulate_media(color_scheme=scheme)

    async def violations(self, axe: Path) -> list[str]:
        """What axe finds against the rules of accessibility in the page as it is."""
        await self._page.evaluate(f"{axe.read_text()};0")
        found: list[str] = await self._page.evaluate(_VIOLATIONS)
        return found

    async def room(self) -> str:
        """The id of the room of the call."""
        return await self._page.get_attribute("#call", "data-room") or ""

    async def text(self, element: str) -> str:
        """What the element with this id says."""
        return (await self._page.inner_text(f"#{element}")).strip()

    async def state_or_text(self, element: str) -> str:
        """The state that the element with this id shows, or what it says if it shows none."""
        return await self._page.get_attribute(f"#{element}", "data-state") or await self.text(element)

    async def shows(self, **texts: str) -> None:
        """Wait until the elements show this; `peer_node="node-2"` speaks of the element `peer-node`."""
        wanted = {name.replace("_", "-"): text for name, text in texts.items()}

        async def matches() -> bool:
            found = {name: await self.state_or_text(name) for name in wanted}
            assert found == wanted, found
            return True

        await eventually(matches, timeout=MEDIA_SECONDS, what=f"the page shows {wanted}")

    async def is_visible(self, element: str) -> bool:
        """Whether the element with this id can be seen."""
        return await self._page.is_visible(f"#{element}")

    async def states_shown(self, element: str) -> list[str]:
        """Every state that an element with a state has shown since the page was loaded, in order."""
        states: list[str] = await self._page.evaluate("id => watched.states[id] ?? []", element)
        return [state for state, _ in groupby(states)]

    async def comes_to_show(self, element: str, state: str) -> None:
        """Wait until an element with a state has shown this one, be it for a moment."""

        async def shown() -> bool:
            return state in await self.states_shown(element)

        await eventually(shown, timeout=PAGE_SECONDS, what=f"the page has shown {element} {state}")

    async def connections_made(self) -> int:
        """How many RTCPeerConnections the page has made since it was loaded."""
        count: int = await self._page.evaluate("watched.connections.length")
        return count

    async def makes_connection(self, number: int) -> None:
        """Wait until the page has made its n-th RTCPeerConnection; it may need another if both sides begin at once."""

        async def made() -> bool:
            return await self.connections_made() >= number

        await eventually(made, timeout=PAGE_SECONDS, what=f"the page makes its connection number {number}")

    async def frames_decoded(self) -> int:
        """How many video frames of the other side the browser has decoded on its present connection."""
        frames: int = await self._page.evaluate(_FRAMES_DECODED)
        return frames

    async def sees_video(self, more_frames: int = 5) -> None:
        """Wait until the other side is on the screen and that many more frames of it have been decoded."""
        before = await self.frames_decoded()

        async def moves() -> bool:
            frames = await self.frames_decoded()
            # A reloaded page is a new connection, which counts from zero.
            assert frames >= more_frames + (before if frames >= before else 0), (
                f"{before} frames, then {frames}"
            )
            return bool(await self._page.evaluate(_SHOWS_PICTURES))

        what = "video of the other side is decoded and shown"
        await eventually(moves, timeout=MEDIA_SECONDS, interval=0.1, what=what)

    async def candidates_in_use(self) -> tuple[str, str]:
        """The types of the two candidates over which media goes: own and the other side's."""
        own, theirs = await self._page.evaluate(_CANDIDATES_IN_USE)
        return own, theirs

    async def restart_ice(self, peer: "DemoPage") -> None:
        """Have ICE negotiated anew, and wait until both sides use what was agreed."""
        before = await self._ice_fragment("currentLocalDescription")
        await self._page.evaluate("watched.connections.at(-1).restartIce()")

        async def agreed() -> bool:
            own = await self._ice_fragment("currentLocalDescription")
            theirs = await peer._ice_fragment("currentRemoteDescription")
            assert own not in (None, before), (before, own)
            assert own == theirs, (own, theirs)
            return True

        await eventually(agreed, timeout=PAGE_SECONDS, what="both have negotiated anew")

    async def _ice_fragment(self, description: str) -> str | None:
        fragment: str | None = await self._page.evaluate(_ICE_FRAGMENT, description)
        return fragment

    async def say(self, text: str) -> None:
        """Write `text` and press Enter."""
        await self._bring_forward("chat")
        await self._page.fill("#chat-text", text)
        await self._page.press("#chat-text", "Enter")

    async def chat(self) -> list[tuple[str, str]]:
        """The chat as shown: who (`own` or `peer`), and what."""
        lines: list[list[str]] = await self._page.eval_on_selector_all(
            "#chat-log li", "items => items.map((item) => [item.className, item.lastChild.textContent])"
        )
        return [(who, text) for who, text in lines]

    async def chat_shows(self, *lines: tuple[str, str]) -> None:
        """Wait until the chat is exactly this."""

        async def matches() -> bool:
            found = await self.chat()
            assert found == list(lines), found
            return True

        await eventually(matches, timeout=PAGE_SECONDS, what=f"the chat shows {lines}")

    async def report(self, reason: str) -> None:
        """Press "Report", say why, and wait until the page says that it is stored."""
        await self._page.click("#report")
        await self._page.fill("#report-text", reason)
        await self._page.click("#report-dialog [value=send]")
        await self.is_told("Thank you. Your report is stored.")

    async def is_told(self, text: str) -> None:
        """Wait until the page tells this."""

        async def told() -> bool:
            found = await self.text("notice-text") if await self.is_visible("notice") else ""
            assert found == text, found
            return True

        await eventually(told, timeout=PAGE_SECONDS, what=f"the page tells: {text}")

    async def events(self) -> list[str]:
        """The lines of the log of events, without their times."""
        lines: list[str] = await self._page.eval_on_selector_all(
            "#event-log li", "items => items.map((item) => item.lastChild.textContent.trim())"
        )
        return lines

    async def stamped_events(self) -> list[str]:
        """The lines of the log of events with their times."""
        lines: list[str] = await self._page.eval_on_selector_all(
            "#event-log li", "items => items.map((item) => item.textContent)"
        )
        return lines

    async def logs(self, *patterns: str) -> None:
        """Wait until the log of events has a line for each of these regular expressions."""

        async def found() -> bool:
            lines = await self.events()
            missing = [one for one in patterns if not any(re.fullmatch(one, line) for line in lines)]
            assert not missing, (missing, lines)
            return True

        await eventually(found, timeout=PAGE_SECONDS, what=f"the log has {patterns}")

    async def kill_own_node(self) -> None:
        """Press "Kill my node"."""
        await self._bring_forward("events")
        await self._page.click("#kill")

    async def _bring_forward(self, tab: str) -> None:
        """On a phone chat and events share a place."""
        if await self.is_visible(f"tab-{tab}"):
            await self._page.click(f"#tab-{tab}")

    async def hang_up(self) -> None:
        """Press "Hang up"."""
        await self._page.click("#hang-up")

    async def shows_end(self, reason: str) -> None:
        """Wait until the page says that the call is over, and why."""
        await eventually(lambda: self.is_visible("ended"), timeout=PAGE_SECONDS, what="the call is over")
        assert await self._page.get_attribute("#ended", "data-reason") == reason
        assert not await self.is_visible("call")

    async def fits(self) -> bool:
        """Whether nobody has to scroll sideways, or down beyond the end of the content."""
        fits: bool = await self._page.evaluate(_FITS)
        return fits

    async def screenshot(self, path: Path) -> None:
        """Save a picture of the whole page, for human eyes."""
        await self._page.screenshot(path=path, full_page=True)

"""The states of the demo page, in words and for everybody: what each side is told, and what axe finds in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, ViewportSize

from tests.acceptance.browsers.page_calls import ON_ONE_NODE, ON_TWO_NODES, call_between
from tests.helpers.browsers import DemoPage, demo_page
from tests.helpers.cluster import Cluster, running_cluster
from tests.helpers.commands import keepline
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

AXE = Path(__file__).resolve().parents[3] / "clients" / "js" / "node_modules" / "axe-core" / "axe.min.js"
DESK, PHONE = ViewportSize(width=1440, height=900), ViewportSize(width=390, height=844)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

NO_DEVICES = """
navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("none", "NotFoundError"); };
"""


@asynccontextmanager
async def visitor(
    browser: Browser, url: str, *, script: str = "", viewport: ViewportSize = DESK, **options: Any
) -> AsyncIterator[DemoPage]:
    async with demo_page(browser, url, viewport, script=script, **options) as page:
        yield page


async def test_a_killed_node_is_told_to_both_sides_to_the_millisecond(
    two_nodes: Cluster, browser: Browser
) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        await call.bob.kill_own_node()
        killed = r"node-2 killed \(pid \d+\)"
        picture = r"picture never stopped: \d+ frames in \d+\.\d\d s|picture stood still for \d+\.\d\d s"
        await call.bob.logs(
            killed, "connection to node-2 lost", r"resumed on node-1 after \d+\.\d\d s", picture
        )
        await call.alice.logs(killed, r"the other side resumed on node-1 after \d+\.\d\d s", picture)
        for page in call.pages:
            await page.logs(r"node-2 runs again \(pid \d+\)")
        await call.goes_on()
        await call.on_nodes(*ON_ONE_NODE)
        stamps = [line[:12] for line in await call.alice.stamped_events()]
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d", stamp) for stamp in stamps), stamps
        assert [page.complaints for page in call.pages] == [[], []]


async def test_the_command_kills_what_it_names_and_pages_say_so(two_nodes: Cluster, browser: Browser) -> None:
    async with call_between(two_nodes, browser, ON_ONE_NODE) as call:
        done = await keepline("kill", "node-1", "--data", str(two_nodes.data))
        assert re.fullmatch(r"node-1 \(pid \d+\) killed\n", done.stdout), done
        for page in call.pages:
            await page.logs(r"node-1 killed \(pid \d+\)", r"resumed on node-2 after \d+\.\d\d s")
        await call.goes_on()
        done = await keepline("kill", "node-9", "--data", str(two_nodes.data))
        assert done.code == 1
        assert done.stderr == (
            "keepline: there is no node-9 here; there are redis, postgres, node-1, node-2, persister-1\n"
        )
        await eventually(lambda: two_nodes.is_ready(0), timeout=30.0, what="the killed node runs again")


async def test_a_third_visitor_is_told_that_the_call_is_full_and_disturbs_nobody(
    two_nodes: Cluster, browser: Browser
) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        async with visitor(browser, call.link) as carol:
            await carol.join()
            await carol.shows_end("call_full")
            assert "Two people are in it already" in await carol.text("ended-text")
        await call.goes_on()
        assert "reconnecting" not in await call.bob.states_shown("signaling-state")


async def test_without_cameras_both_sides_are_told_so(two_nodes: Cluster, browser: Browser) -> None:
    async with visitor(browser, two_nodes.demo, script=NO_DEVICES) as alice:
        await alice.start_call()
        await alice.is_told(
            "There is no camera and no microphone on this device. You can still see and hear the other side, and chat."
        )
        async with visitor(browser, await alice.invitation(), script=NO_DEVICES) as bob:
            await bob.join()
            for page in (alice, bob):
                await page.places("Neither side has a camera or a microphone. You can chat.")
        async with visitor(browser, await alice.invitation()) as carol:
            await carol.join_when_free()
            await carol.places("The other side has no camera on.")
            await alice.sees_video()


async def test_a_side_that_goes_is_waited_for_in_seconds(two_nodes: Cluster, browser: Browser) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        await call.bob.go("about:blank")
        await call.alice.places("The other side lost the connection. Waiting for them to come back…")
        assert re.fullmatch(r"\d+ s", await call.alice.text("placard-count"))
        await call.alice.hang_up()
        await call.alice.shows_end("hangup")


async def test_a_call_that_was_opened_elsewhere_can_be_taken_back(
    two_nodes: Cluster, browser: Browser
) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call, call.bob.duplicate() as second:
        await second.sees_video()
        await call.bob.shows_end("replaced")
        await call.bob.press("rejoin")
        await call.goes_on()
        await second.shows_end("replaced")


async def test_devices_can_be_changed_in_a_call(two_nodes: Cluster, browser: Browser) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        made = [await page.connections_made() for page in call.pages]
        await call.alice.choose_device("choose-mic", 1)
        await call.bob.sees_video()
        assert [await page.connections_made() for page in call.pages] == made
        assert await call.alice.text("devices-problem") == ""
        await call.alice.press("mic")
        await call.bob.shows(peer_name="The other side · muted")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
async def test_axe_finds_nothing_in_any_state_in_light_and_dark(
    two_nodes: Cluster, browser: Browser, viewport: ViewportSize, tmp_path: Path
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is missing: npm ci in clients/js")

    async def is_accessible(page: DemoPage, state: str) -> None:
        for scheme in SCHEMES:
            await page.turn(scheme)
            await page.screenshot(
                tmp_path / f"{state}-{scheme}.png"
            )  # for the eyes of those who change the page
            assert await page.violations(AXE) == [], (state, scheme)
        assert await page.fits(), state

    async with AsyncExitStack() as stack:
        alice = await stack.enter_async_context(visitor(browser, two_nodes.demo, viewport=viewport))
        await is_accessible(alice, "lobby")
        await alice.start_call()
        bob = await stack.enter_async_context(visitor(browser, await alice.invitation(), viewport=viewport))
        assert await alice.focus() == "call-title"
        await is_accessible(alice, "waiting")
        await is_accessible(bob, "invited")
        await bob.join()
        await alice.sees_video()
        await alice.say("Can you see me?")
        await bob.chat_shows(("peer", "Can you see me?"))
        await is_accessible(bob, "call")
        await bob.kill_own_node()
        await bob.logs(r"resumed on node-1 after .*")
        await is_accessible(bob, "killed")
        for button, dialog in (("report", "report-dialog"), ("devices-open", "devices-dialog")):
            await bob.press(button)
            await is_accessible(bob, dialog)
            await bob.escape()
            assert await bob.focus() == button
        await bob.report("Only a test")
        await is_accessible(bob, "notice")
        await bob.hang_up()
        await alice.shows_end("hangup")
        assert await alice.focus() == "ended"
        await is_accessible(alice, "ended")
    await eventually(lambda: two_nodes.is_ready(1), timeout=30.0, what="the killed node runs again")


async def test_with_lan_a_phone_calls_over_tls_with_its_camera(browser: Browser) -> None:
    async with running_cluster(nodes=2, options=["--lan-address", "127.0.0.1"]) as cluster:
        lan = cluster.line["lan"]
        assert lan.startswith("https://127.0.0.1:")
        async with visitor(browser, cluster.demo) as desk:
            await desk.start_call()
            link = await desk.invitation()
            assert link.startswith(f"{lan}c/")
            assert await desk.is_visible("qr")
            async with visitor(browser, link, viewport=PHONE, ignore_https_errors=True) as phone:
                await phone.join()
                for page in (desk, phone):
                    await page.sees_video()
                await phone.kill_own_node()
                await phone.logs("connection to node-2 lost", r"resumed on node-1 after \d+\.\d\d s")
                await desk.sees_video()
                await phone.hang_up()
                await desk.shows_end("hangup")
                assert phone.complaints == []

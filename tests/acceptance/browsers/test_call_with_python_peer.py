"""A browser on the demo page and a Python program with aiortc call each other, each on a node of its own."""

import pytest
from playwright.async_api import Browser

from tests.helpers.aiortc_peer import AiortcPeer, aiortc_peer
from tests.helpers.browsers import MEDIA_SECONDS, PHONE, DemoPage, Side, demo_page, take_seat
from tests.helpers.cluster import Cluster
from tests.helpers.rows import row_becomes
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG_CHAT = 30  # lines, more than the page has room for


async def see_each_other(page: DemoPage, peer: AiortcPeer) -> None:
    """Wait until pictures and sound go both ways."""
    await page.shows(signaling_state="connected", media_state="connected", peer_state="joined")
    await page.sees_video()
    before = peer.frames.copy()

    def moves() -> bool:
        return all(peer.frames[kind] > before[kind] + 5 for kind in ("video", "audio"))

    await eventually(moves, timeout=MEDIA_SECONDS, what="the Python side receives picture and sound")
    assert peer.connection_state == "connected"


async def chat_both_ways(page: DemoPage, peer: AiortcPeer) -> None:
    """The page writes first, the Python side answers."""
    await page.say("Are you a machine?")
    await eventually(lambda: peer.chat == ["Are you a machine?"], what="the Python side gets the message")
    await peer.call.chat("What makes you ask?")
    await page.chat_shows(("own", "Are you a machine?"), ("peer", "What makes you ask?"))


async def has_lines(page: DemoPage, count: int) -> bool:
    return len(await page.chat()) == count


async def is_over_in_postgres(cluster: Cluster, room: str, messages: int) -> None:
    """The cluster and the row in Postgres agree about a room that ended with a hang-up."""
    snapshot = await cluster.room(room)
    assert (snapshot["status"], snapshot["ended_reason"]) == ("ended", "hangup")
    assert len(snapshot["messages"]) == messages
    await row_becomes(cluster.database_url, snapshot)


async def test_the_browser_calls_and_hangs_up(two_nodes: Cluster, browser: Browser) -> None:
    async with demo_page(browser, f"{two_nodes.demo}?nodes=0,1") as page:
        await page.start_call()
        side = await take_seat(two_nodes.http, await page.invitation())
        async with aiortc_peer(side.urls, side.token, side.room) as peer:
            assert peer.call.polite
            await see_each_other(page, peer)
            await page.shows(own_node="node-1")
            await chat_both_ways(page, peer)

            await page.reload()
            await see_each_other(page, peer)
            await page.chat_shows(("own", "Are you a machine?"), ("peer", "What makes you ask?"))

            await page.hang_up()
            await page.shows_end("hangup")
            await eventually(lambda: peer.ended == "hangup", what="the Python side is told of the end")
        assert page.complaints == []
    await is_over_in_postgres(two_nodes, side.room, messages=2)


async def test_the_python_side_calls_and_hangs_up(two_nodes: Cluster, browser: Browser) -> None:
    async with two_nodes.http.post(f"{two_nodes.demo}demo/calls", json={"nodes": [0, 1]}) as response:
        opened = await response.json()
    caller = Side.of_seat(opened)
    async with (
        aiortc_peer(caller.urls, caller.token, caller.room) as peer,
        demo_page(browser, opened["link"], PHONE) as page,
    ):
        await page.join()
        assert not peer.call.polite
        await see_each_other(page, peer)
        await page.shows(own_node="node-2")
        await chat_both_ways(page, peer)

        for number in range(LONG_CHAT):
            await peer.call.chat(f"Line {number}")
        await eventually(lambda: has_lines(page, 2 + LONG_CHAT), what="the page shows the long chat")
        assert await page.fits()

        await peer.call.end()
        await page.shows_end("hangup")
        assert page.complaints == []
    await is_over_in_postgres(two_nodes, caller.room, messages=2 + LONG_CHAT)

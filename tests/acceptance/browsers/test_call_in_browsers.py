"""Two Chromium browsers call each other over a whole cluster, as visitors of the demo page."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.acceptance.browsers.page_calls import ACTIVE, ON_ONE_NODE, ON_TWO_NODES, call_between, kill
from tests.helpers.cluster import Cluster
from tests.helpers.rows import reports_become
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("nodes", [ON_TWO_NODES, ON_ONE_NODE], ids=["two-nodes", "one-node"])
async def test_a_call_from_invitation_to_hang_up(
    two_nodes: Cluster, browser: Browser, nodes: tuple[int, int], tmp_path: Path
) -> None:
    async with call_between(two_nodes, browser, nodes) as call:
        await call.chat("Can you see me?", "Yes, and hear you")
        await call.fits_its_windows(tmp_path)
        await call.is_in_postgres(**ACTIVE)

        for reloaded, other in (call.pages, call.pages[::-1]):
            chat, connections = await reloaded.chat(), await other.connections_made()
            await reloaded.reload()
            await other.makes_connection(connections + 1)
            await call.goes_on()
            await call.on_nodes(*nodes)
            await reloaded.chat_shows(*chat)
        await call.chat("Back again", "So I see")
        await call.is_in_postgres(**ACTIVE)

        await call.bob.report("Too good to be true")
        await call.bob.hang_up()
        for page in call.pages:
            await page.shows_end("hangup")
        bob = (await two_nodes.room(call.room))["user_2"]
        await reports_become(two_nodes.database_url, call.room, (bob, "Too good to be true"))
        await call.is_in_postgres(status="ended", ended_reason="hangup")
        assert [page.complaints for page in call.pages] == [[], []]


@pytest.mark.parametrize(
    ("nodes", "killed"), [(ON_TWO_NODES, 1), (ON_ONE_NODE, 0)], ids=["node-of-one", "node-of-both"]
)
async def test_a_killed_node_does_not_stop_the_picture(
    two_nodes: Cluster, browser: Browser, nodes: tuple[int, int], killed: int
) -> None:
    async with call_between(two_nodes, browser, nodes) as call:
        await call.chat("Watch this", "I do")
        media = [
            (await page.connections_made(), await page.states_shown("media-state")) for page in call.pages
        ]
        kill(two_nodes, two_nodes.nodes[killed].id)
        for page, node in zip(call.pages, nodes, strict=True):
            await page.sees_video()
            if node == killed:
                await page.comes_to_show("signaling-state", "reconnecting")
        await call.goes_on()
        await call.on_nodes(*(1 - killed if node == killed else node for node in nodes))
        await call.chat("Still there?", "As if nothing had happened")

        for page in call.pages:
            assert "left" not in await page.states_shown("peer-state")
        assert media == [
            (await page.connections_made(), await page.states_shown("media-state")) for page in call.pages
        ], "the same connection, which was never anything but connected"
        await eventually(lambda: two_nodes.is_ready(killed), timeout=30.0, what="the killed node runs again")
        await call.is_in_postgres(**ACTIVE)

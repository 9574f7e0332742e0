"""A call between two real browsers while its nodes are emptied: nobody notices."""

import pytest
from playwright.async_api import Browser

from tests.acceptance.browsers.page_calls import ACTIVE, ON_TWO_NODES, call_between
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRAINED_SECONDS = 20.0


async def drain(cluster: Cluster, node: int) -> None:
    """Empty a node, and wait until it is."""
    await cluster.api("POST", "/v1/node/drain", node=node, json={})

    async def drained() -> bool:
        return bool((await cluster.api("GET", "/v1/node/drain", node=node))["state"] == "drained")

    await eventually(drained, timeout=DRAINED_SECONDS, what=f"node {node} is empty")


@pytest.mark.timeout(120)
async def test_pages_move_from_node_to_node_and_show_nothing_of_it(
    two_nodes: Cluster, browser: Browser
) -> None:
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        made = [await page.connections_made() for page in call.pages]
        for empty, full in ((1, 0), (0, 1)):
            await drain(two_nodes, empty)
            for page in call.pages:
                await page.shows(own_node=two_nodes.nodes[full].id)
            await call.goes_on()
            await call.chat(f"Are you on {full}?", "Yes")
            await two_nodes.api("DELETE", "/v1/node/drain", node=empty)
        await call.alice.restart_ice(call.bob)
        await call.goes_on()
        await call.is_in_postgres(**ACTIVE)
        for page in call.pages:
            assert "reconnecting" not in await page.states_shown("signaling-state")
            assert "reconnecting" not in await page.states_shown("peer-state")
        assert [await page.connections_made() for page in call.pages] == made

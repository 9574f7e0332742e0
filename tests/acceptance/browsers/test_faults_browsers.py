"""A call between two real browsers while everything below it is killed, one after the other, and all at once."""

import pytest
import redis.asyncio
from playwright.async_api import Browser

from keepline.room import keys
from tests.acceptance.browsers.page_calls import ACTIVE, ON_TWO_NODES, Call, call_between, kill
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTART_SECONDS = 30.0
EVERYTHING = ("node-1", "node-2", "persister-1", "redis", "postgres")


async def losses(call: Call) -> list[int]:
    """How often each page has been without the cluster."""
    return [(await page.states_shown("signaling-state")).count("reconnecting") for page in call.pages]


async def lost_more_than(call: Call, before: list[int]) -> None:
    """Wait until a page has noticed; those that count up were without the cluster since `before`."""

    async def noticed() -> bool:
        return await losses(call) > before

    await eventually(noticed, timeout=RESTART_SECONDS, what="a page shows reconnecting")


async def runs_again(cluster: Cluster) -> None:
    """Wait until all nodes are ready and have subscribed to their inboxes."""
    async with redis.asyncio.from_url(cluster.redis_url) as client:

        async def whole() -> bool:
            try:
                heard = await client.pubsub_numsub(*(keys.inbox(node.id) for node in cluster.nodes))
            except redis.ConnectionError:
                return False
            ready = [await cluster.is_ready(node) for node in range(len(cluster.nodes))]
            return all(ready) and all(count > 0 for _, count in heard)

        await eventually(whole, timeout=RESTART_SECONDS, interval=0.1, what="the cluster is whole")


async def media_of(call: Call) -> list[tuple[int, list[str]]]:
    """Of each page, how many connections it has made and every state that these have been in."""
    return [(await page.connections_made(), await page.states_shown("media-state")) for page in call.pages]


async def is_unharmed(call: Call, media: list[tuple[int, list[str]]], asked: str) -> None:
    """Pictures, renegotiation and chat: all still there, on the very same connection."""
    await call.goes_on()
    await call.alice.restart_ice(call.bob)
    await call.bob.restart_ice(call.alice)
    await call.goes_on()
    await call.chat(asked, "Nothing")
    await call.is_in_postgres(**ACTIVE)
    assert await media_of(call) == media, "the same connection, which was never anything but connected"
    for page in call.pages:
        assert "left" not in await page.states_shown("peer-state")


@pytest.mark.timeout(240)
async def test_the_picture_never_stops_whatever_is_killed(two_nodes: Cluster, browser: Browser) -> None:
    """Holds the promise that media needs the cluster only to begin, and that signaling heals by itself."""
    async with call_between(two_nodes, browser, ON_TWO_NODES) as call:
        media = await media_of(call)
        kill(two_nodes, "node-2")
        await call.bob.comes_to_show("signaling-state", "reconnecting")
        await call.bob.sees_video()
        await runs_again(two_nodes)
        await is_unharmed(call, media, "What was that?")

        async with redis.asyncio.from_url(two_nodes.redis_url) as client:
            await client.flushall()
        await call.alice.sees_video()
        await runs_again(two_nodes)
        await is_unharmed(call, media, "And that?")

        for server in ("redis", "postgres"):
            again = two_nodes.up.messages.count(f"{server} is running again")
            kill(two_nodes, server)
            await call.alice.sees_video()
            await eventually(
                lambda: two_nodes.up.messages.count(f"{server} is running again") > again,  # noqa: B023 - awaited here
                timeout=RESTART_SECONDS,
                what=f"{server} is running again",
            )
            await runs_again(two_nodes)
            await is_unharmed(call, media, f"And {server}?")

        before = await losses(call)
        kill(two_nodes, *EVERYTHING)
        await lost_more_than(call, before)
        for page in call.pages:
            await page.sees_video()
        await runs_again(two_nodes)
        await is_unharmed(call, media, "And now?")
        assert all(now > then for now, then in zip(await losses(call), before, strict=True))

"""Nodes that send their clients away: told to stop, told to be empty for a while, and told to hurry."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.acceptance.bare_client import BareClient
from tests.acceptance.scenes import Scene
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOW_SECONDS = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet() -> AsyncIterator[Fleet]:
    """Two nodes with a short drain window."""
    async with running_fleet(nodes=2, environ={"KEEPLINE_DRAIN_SECONDS": f"{WINDOW_SECONDS:g}"}) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> AsyncIterator[Fleet]:
    """The fleet; a test may do to node 1 what it likes."""
    yield shared_fleet
    await shared_fleet.restart_unless_ready(1)


async def drain_state(fleet: Fleet, node: int) -> str:
    """What a node says of its drain."""
    return str((await fleet.api("GET", "/v1/node/drain", node=node))["state"])


async def test_who_connects_elsewhere_before_the_close_misses_nothing(fleet: Fleet) -> None:
    """Holds that a connection works on after its goodbye (`Goodbyes.say`), and that the peer never sees it go."""
    async with Scene(fleet, (0, 1)) as scene:
        call = await scene.call()
        await fleet.api("POST", "/v1/node/drain", node=1, json={})
        goodbye = await call.bob.client.expect("goodbye", reason="draining")
        assert goodbye["reconnect_after_ms"] <= WINDOW_SECONDS * 100
        await call.goes_on("while leaving")
        before = call.bob.client
        call.bob = await scene.login(call.bob.user, 0, resume=call.bob.welcome["resume"])
        assert call.bob.welcome["resumed"] is True
        assert await before.closed() == 4409
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        await call.goes_on()

        async def drained() -> bool:
            return await drain_state(fleet, 1) == "drained"

        await eventually(drained, what="node 1 is empty")


async def test_a_drained_node_lives_takes_nobody_and_can_be_taken_back(fleet: Fleet) -> None:
    async with Scene(fleet, (0, 1)) as scene:
        call = await scene.call()
        begun = await fleet.api("POST", "/v1/node/drain", node=1, json={"seconds": WINDOW_SECONDS})
        assert (begun["state"], begun["sessions"]) == ("draining", 1)
        assert not await fleet.is_ready(1)
        with pytest.raises((OSError, InvalidMessage, ConnectionClosed)):
            await scene.connect(1)
        frames, code = await call.bob.client.rest()
        assert ([frame["type"] for frame in frames], code) == (["goodbye"], 4503)
        await call.alice.client.expect("peer", room=call.room, state="reconnecting", grace_ms=10_000)
        assert (await fleet.room(call.room, node=1))["status"] == "grace_period", (
            "the node still serves the API"
        )
        assert (await fleet.api("DELETE", "/v1/node/drain", node=1))["state"] == "ready"
        assert await fleet.is_ready(1)
        call.bob = await scene.login(call.bob.user, 1, resume=call.bob.welcome["resume"])
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
        await call.goes_on()


async def test_sigterm_ends_in_time_and_with_0(fleet: Fleet) -> None:
    now = asyncio.get_running_loop().time
    async with Scene(fleet, (0, 1)) as scene:
        call = await scene.call()
        began = now()
        os.kill(fleet.programs[1].pid, signal.SIGTERM)

        async def not_ready() -> bool:
            return not await fleet.is_ready(1)

        await eventually(not_ready)
        frames, code = await call.bob.client.rest()
        assert ([frame["type"] for frame in frames], code) == (["goodbye"], 4503)
        async with asyncio.timeout(WINDOW_SECONDS + 5.0):
            assert await fleet.programs[1].wait() == 0
        assert now() - began < WINDOW_SECONDS + 2.0
        assert await fleet.redis.exists("node:node-2") == 0


async def test_a_second_signal_ends_it_at_once(fleet: Fleet) -> None:
    now = asyncio.get_running_loop().time
    async with Scene(fleet, (0, 1)) as scene:
        clients: list[BareClient] = [(await scene.call()).bob.client for _ in range(3)]
        os.kill(fleet.programs[1].pid, signal.SIGTERM)
        await clients[0].expect("goodbye")
        began = now()
        os.kill(fleet.programs[1].pid, signal.SIGTERM)
        async with asyncio.timeout(WINDOW_SECONDS + 5.0):
            assert await fleet.programs[1].wait() == 0
        assert now() - began < WINDOW_SECONDS / 2

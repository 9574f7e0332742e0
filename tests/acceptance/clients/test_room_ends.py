"""Every way in which a room ends by itself, seen by bare clients on a cluster that is in a hurry.

Nearly all of it is waiting, so each scenario runs on one node and on two at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.acceptance.harness import ON_ONE_NODE, ON_TWO_NODES, Call, Harness
from tests.helpers.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="session")

Scenario = Callable[[Harness], Coroutine[Any, Any, None]]
SideBySide = Callable[[Scenario], Coroutine[Any, Any, None]]


@pytest_asyncio.fixture(loop_scope="session")
async def side_by_side(hasty_cluster: Cluster) -> AsyncIterator[SideBySide]:
    """Runs a scenario with both ends of its calls on one node, and with each on a node of its own."""
    async with AsyncExitStack() as stack:
        harnesses = [
            await stack.enter_async_context(Harness(hasty_cluster, nodes))
            for nodes in (ON_ONE_NODE, ON_TWO_NODES)
        ]

        async def run(scenario: Scenario) -> None:
            async with asyncio.TaskGroup() as group:
                for harness in harnesses:
                    group.create_task(scenario(harness))

        yield run


async def over(harness: Harness, room: str, reason: str) -> None:
    """All records agree that the room has ended."""
    ended = await harness.stored(room, status="ended", ended_reason=reason)
    assert ended["ended_at"] is not None
    assert ended["grace_period_expires"] is None
    assert (ended["user_1_connected"], ended["user_2_connected"]) == (False, False)


@pytest.mark.parametrize("how", ["lost", "left"])
async def test_nobody_waits_longer_than_the_grace_period(side_by_side: SideBySide, how: str) -> None:
    async def scenario(harness: Harness) -> None:
        call = await harness.call()
        if how == "lost":
            call.bob.client.cut()
            gone = await call.alice.client.expect("peer", state="reconnecting")
        else:
            await call.bob.client.ask("leave", "ok", room=call.room)
            gone = await call.alice.client.expect("peer", state="left")
        assert gone["grace_ms"] == 1_000
        await call.alice.client.expect("ended", room=call.room, reason="grace_expired")
        await over(harness, call.room, "grace_expired")

        late = await harness.login(call.bob.user, harness.nodes[1], resume=call.bob.welcome["resume"])
        assert late.welcome["rooms"] == []
        refused = await late.client.refused("room_ended", "join", room=call.room)
        assert refused["reason"] == "grace_expired", "one who was away learns why"

    await side_by_side(scenario)


async def test_a_room_to_which_only_one_comes_ends(side_by_side: SideBySide) -> None:
    async def scenario(harness: Harness) -> None:
        alice, bob = uuid4(), uuid4()
        room = (await harness.cluster.open_room(alice, bob, node=1))["room_id"]
        waiting = await harness.login(alice, harness.nodes[0])
        await waiting.client.ask("join", "joined", room=room)
        await waiting.client.expect("ended", room=room, reason="no_show")
        await over(harness, room, "no_show")
        late = await harness.login(bob, harness.nodes[1])
        refused = await late.client.refused("room_ended", "join", room=room)
        assert refused["reason"] == "no_show"

    await side_by_side(scenario)


async def test_a_call_of_agreed_length_is_announced_to_end_and_ends(side_by_side: SideBySide) -> None:
    async def scenario(harness: Harness) -> None:
        call = await harness.call(duration_seconds=2)
        for client in call.clients:
            ending = await client.expect("ending", room=call.room)
            assert 0 < ending["ends_in_ms"] <= 1_000
        for client in call.clients:
            await client.expect("ended", room=call.room, reason="duration")
        await over(harness, call.room, "duration")

    await side_by_side(scenario)


async def test_a_silent_text_room_warns_and_ends_unless_somebody_writes(side_by_side: SideBySide) -> None:
    async def scenario(harness: Harness) -> None:
        call = await harness.call(chat_mode="text")
        await warned(call)
        message = (await call.alice.client.ask("chat", "ok", room=call.room, text="still here"))["message"]
        cleared = {"type": "inactivity", "room": call.room, "state": "cleared"}
        assert await call.alice.client.receive() == cleared
        at_bob = [await call.bob.client.receive() for _ in range(2)]
        assert cleared in at_bob
        assert {"type": "chat", "room": call.room, "message": message} in at_bob
        await warned(call)
        for client in call.clients:
            await client.expect("ended", room=call.room, reason="inactivity")
        await over(harness, call.room, "inactivity")

    await side_by_side(scenario)


async def warned(call: Call) -> None:
    for client in call.clients:
        await client.expect("inactivity", room=call.room, state="warning", ends_in_ms=2_000)


async def test_a_text_room_waits_for_who_is_away_until_it_is_silent(side_by_side: SideBySide) -> None:
    async def scenario(harness: Harness) -> None:
        call = await harness.call(chat_mode="text")
        call.bob.client.cut()
        await call.alice.client.expect("peer", room=call.room, state="away")
        await call.alice.client.expect("inactivity", room=call.room, state="warning")
        await call.alice.client.expect("ended", room=call.room, reason="inactivity")
        await over(harness, call.room, "inactivity")

    await side_by_side(scenario)

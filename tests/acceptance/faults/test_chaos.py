"""Calls under load while one node after the other is killed: in the end everybody agrees about everything.

CHAOS_ROOMS, CHAOS_SECONDS and CHAOS_SEED make it longer, or repeat a run; `make chaos` is the long form.
"""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest

from keepline.room import keys
from tests.acceptance.faults.faults import nothing_left_of
from tests.helpers.checker import differences
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.load import LoadedCall, loaded_calls, pause
from tests.helpers.rows import row_of_room
from tests.helpers.waiting import eventually

ROOMS = int(os.environ.get("CHAOS_ROOMS", "30"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
NODES = 3
PAUSE_SECONDS = 0.5, 3.0
SETTLED_SECONDS = 60.0
AMONG_OTHERS = 6
"""One of so many calls is hung up in the middle of it all."""

ENVIRON = {
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "10000",
    "KEEPLINE_CLAIM_IDLE_SECONDS": "1",
    # A node that was killed knows nothing of its clients, who may have nowhere to go for a while.
    "KEEPLINE_GRACE_SECONDS": "30",
}


@pytest.mark.timeout(SECONDS + 180)
async def test_whatever_node_is_killed_everybody_agrees_in_the_end() -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"CHAOS_SEED={seed} CHAOS_ROOMS={ROOMS} CHAOS_SECONDS={SECONDS:g}")  # noqa: T201 - to repeat it
    async with (
        running_fleet(nodes=NODES, environ=ENVIRON) as fleet,
        loaded_calls(fleet, ROOMS, seed) as (calls, stop),
    ):
        chance = random.Random(f"{seed} faults")
        over = chance.sample(calls, ROOMS // AMONG_OTHERS)
        killed, _ = await asyncio.gather(
            kill_nodes(fleet, chance), hang_up(over, random.Random(f"{seed} ends"))
        )
        stop.set()
        members = [member for call in calls for member in call.members]
        await eventually(
            lambda: all(member.settled for member in members), timeout=SETTLED_SECONDS, what="all are back"
        )
        for call in calls:
            await eventually(
                lambda: everybody_agrees(fleet, call),  # noqa: B023 - awaited in the loop
                timeout=SETTLED_SECONDS,
                interval=0.2,
                what=f"everybody agrees about {call.room}",
            )
        lines = sum(len(lines) for call in calls for lines in call.ledger.acknowledged.values())
        unanswered = sum(member.unanswered for member in members)
        signals = sum(len(member.signals) for member in members)
        print(f"{killed} nodes killed, {lines} lines, {signals} signals")  # noqa: T201 - for `make chaos`
        assert unanswered == 0, "a line is stored, or it is not"
        for call in calls:
            # Whoever writes at the moment in which the other hangs up, or while it is away itself, is told so.
            expected = {"room_ended"} if call in over else set()
            refused = {code for member in call.members for code in member.refused}
            assert refused <= expected, "Redis was there all the time"
        assert killed >= 3
        assert lines > ROOMS * SECONDS / 4
        assert {call.room for call in calls if call.members[0].call.ended} == {call.room for call in over}


async def kill_nodes(fleet: Fleet, chance: random.Random) -> int:
    """Kill one node after the other for so long; returns how many it were.

    Some start again at once, under the name that Redis still knows; others not before they have been buried.
    """
    loop = asyncio.get_running_loop()
    until, killed = loop.time() + SECONDS, 0
    while loop.time() < until:
        node = chance.randrange(NODES)
        await fleet.programs[node].kill()
        killed += 1
        if chance.random() < 0.4:
            await nothing_left_of(fleet, node)
        await fleet.start(node)
        await pause(chance.uniform(*PAUSE_SECONDS), asyncio.Event())
    return killed


async def hang_up(calls: list[LoadedCall], chance: random.Random) -> None:
    """End calls from either side, one after the other, while nodes die."""
    for call in calls:
        await pause(chance.uniform(0, SECONDS / len(calls)), asyncio.Event())
        await chance.choice(call.members).call.end()


async def everybody_agrees(fleet: Fleet, call: LoadedCall) -> bool:
    """Hold against each other what nodes, Redis, Postgres and both members have of a room."""
    views = {node.id: await fleet.room(call.room, node=at) for at, node in enumerate(fleet.nodes)}
    row = await row_of_room(fleet.database_url, call.room)
    assert differences({**views, "Postgres": row}) == []
    shown = next(iter(views.values()))
    assert call.ledger.problems(shown["messages"]) == []
    ended = [member.call.ended for member in call.members]
    if ended != [None, None]:
        assert (shown["status"], shown["ended_reason"]) == ("ended", "hangup"), (shown, ended)
        return True
    assert (shown["status"], shown["user_1_connected"], shown["user_2_connected"]) == ("active", True, True)
    partition = keys.partition_of(call.room, keys.DEFAULT_PARTITIONS)
    record = json.loads(await fleet.redis.get(keys.room(partition, call.room)))
    held = [side["node"] for side in record["sides"]]
    assert held == [member.client.node for member in call.members]
    for member in call.members:
        assert call.view(member) == shown["messages"]
    return call.all_signals_arrived()

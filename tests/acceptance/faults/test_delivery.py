"""Delivery under every kind of fault: clients write histories, and the checker reads nothing else.

DELIVERY_CALLS, DELIVERY_SECONDS, DELIVERY_SEED and DELIVERY_HISTORY (a file for the history) make a run longer, or
repeat it; `make check-delivery` is the long form.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from keepline.cli.cluster.bench import distribution
from keepline.cli.cluster.history import History
from keepline.cli.cluster.history_checker import check
from keepline.cli.cluster.writers import Rates, Writers
from tests.acceptance.faults.faults import nothing_left_of
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.rows import row_of_room
from tests.helpers.waiting import eventually

CALLS = int(os.environ.get("DELIVERY_CALLS", "10"))
SECONDS = float(os.environ.get("DELIVERY_SECONDS", "20"))
RATES = Rates(
    signals=float(os.environ.get("DELIVERY_SIGNALS", "10")),
    lines=float(os.environ.get("DELIVERY_LINES", "1")),
)
NODES = 3
SETTLED_SECONDS = 60.0
CALM_SECONDS = 1.0, 3.0

ENVIRON = {
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "10000",
    "KEEPLINE_CLAIM_IDLE_SECONDS": "1",
    # A node that was killed knows nothing of its clients, who may have nowhere to go for a while.
    "KEEPLINE_GRACE_SECONDS": "60",
    "KEEPLINE_DRAIN_SECONDS": "2",
    "KEEPLINE_DRAIN_LINGER_SECONDS": "1",
}


async def kill(fleet: Fleet, node: int, chance: random.Random) -> None:
    """A node dies; it starts again at once, or when it has been buried."""
    await fleet.programs[node].kill()
    if chance.random() < 0.3:
        await nothing_left_of(fleet, node)
    await fleet.start(node)


async def freeze(fleet: Fleet, node: int, chance: random.Random) -> None:
    """A node stands still, for less or for longer than it takes to be buried."""
    pid = fleet.programs[node].pid
    assert pid is not None
    with paused(pid):
        await asyncio.sleep(chance.uniform(1, 9))
    await fleet.restart_unless_ready(node)


async def roll(fleet: Fleet, node: int, chance: random.Random) -> None:
    """A node drains, stops and starts again."""
    await fleet.programs[node].stop()
    await fleet.start(node)


async def stop_redis(fleet: Fleet, node: int, chance: random.Random) -> None:
    """Redis dies and comes back with its data."""
    await fleet.valkey.kill()
    await asyncio.sleep(chance.uniform(0, 3))
    await fleet.valkey.start()


async def stop_postgres(fleet: Fleet, node: int, chance: random.Random) -> None:
    """Postgres is away for a while."""
    await fleet.postgres.kill()
    await asyncio.sleep(chance.uniform(0, 3))
    await fleet.postgres.start()


Fault = Callable[[Fleet, int, random.Random], Awaitable[None]]
FAULTS: dict[str, Fault] = {each.__name__: each for each in (kill, freeze, roll, stop_redis, stop_postgres)}


async def disturb(fleet: Fleet, chance: random.Random, seconds: float) -> list[str]:
    """One fault after the other for so long, each kind before any comes again; which they were."""
    done: list[str] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(done) < len(FAULTS):
        if not len(done) % len(FAULTS):
            kinds = chance.sample(list(FAULTS), len(FAULTS))
        name = kinds[len(done) % len(FAULTS)]
        await FAULTS[name](fleet, chance.randrange(NODES), chance)
        await fleet.until_ready()
        done.append(name)
        await asyncio.sleep(chance.uniform(*CALM_SECONDS))
    return done


@pytest.mark.timeout(SECONDS + 400)
async def test_no_promise_of_delivery_is_broken_under_any_fault(tmp_path: Path) -> None:
    seed = int(os.environ.get("DELIVERY_SEED", random.randrange(2**32)))
    path = Path(os.environ.get("DELIVERY_HISTORY", tmp_path / "history.jsonl"))
    print(f"DELIVERY_SEED={seed} DELIVERY_CALLS={CALLS} DELIVERY_SECONDS={SECONDS:g}")  # noqa: T201 - to repeat it
    async with running_fleet(nodes=NODES, environ=ENVIRON) as fleet, AsyncExitStack() as stack:
        history = History(time.monotonic, stack.enter_context(path.open("w")))
        writers = Writers(history, RATES, seed)
        rooms = await opened(fleet, stack, writers, random.Random(f"{seed} calls"))
        writers.begin()
        stack.push_async_callback(writers.close)
        faults = await disturb(fleet, random.Random(f"{seed} faults"), SECONDS)
        settled = await writers.settle(SETTLED_SECONDS)
        for room in rooms:
            await eventually(
                lambda: agreed(fleet, room),  # noqa: B023 - awaited in the loop
                timeout=SETTLED_SECONDS,
                interval=0.2,
                what=f"Postgres has the chat of {room}",
            )
        await writers.read_chats(
            {
                **{node.id: _lines_at(fleet, at) for at, node in enumerate(fleet.nodes)},
                "postgres": lambda room: _stored_lines(fleet, room),
            }
        )
        await writers.close()
        verdict, counts = check(history.entries), writers.counts()
    print(  # noqa: T201 - for `make check-delivery`
        f"{len(faults)} faults; {verdict.acknowledged_signals} of {verdict.signals} signals and "
        f"{verdict.acknowledged_lines} of {verdict.lines} lines acknowledged; {len(verdict.problems)} promises broken\n"
        f"back after a lost connection, ms: {distribution([ms / 1_000 for ms in verdict.recoveries_ms])}\n{counts}"
    )
    assert verdict.problems == []
    assert settled, "all that was sent is answered in the end"
    assert verdict.unknown == 0
    assert verdict.acknowledged_signals > CALLS * SECONDS * RATES.signals / 4


async def opened(fleet: Fleet, stack: AsyncExitStack, writers: Writers, chance: random.Random) -> list[str]:
    """Open the calls and bring everybody in, from any node to any node."""
    rooms = []
    for _ in range(CALLS):
        users = [uuid.UUID(int=chance.getrandbits(128), version=4) for _ in range(2)]
        rooms.append((await fleet.open_room(*users))["room_id"])
        for user in users:
            urls = chance.sample([node.ws for node in fleet.nodes], NODES)
            await writers.join(stack, rooms[-1], user, urls, fleet.token(user))
    return rooms


async def agreed(fleet: Fleet, room: str) -> bool:
    """Whether a node and Postgres have the same chat."""
    shown = await fleet.room(room, node=0)
    row = await row_of_room(fleet.database_url, room)
    assert row is not None
    return bool(shown["messages"] == row["messages"])


def _lines_at(fleet: Fleet, node: int) -> Callable[[str], Awaitable[list[dict[str, Any]]]]:
    async def lines(room: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await fleet.room(room, node=node))["messages"]
        return messages

    return lines


async def _stored_lines(fleet: Fleet, room: str) -> list[dict[str, Any]]:
    row = await row_of_room(fleet.database_url, room)
    assert row is not None
    messages: list[dict[str, Any]] = row["messages"]
    return messages

"""A worker that is killed at any step: whoever comes next leaves the tables as if nothing had happened."""

import asyncio
from typing import Any

import pytest

from keepline.ops import postgres, redis
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.codec import Event
from persister.stream import Entry
from tests.integration.persister.persister_killer import arm, run_until_death
from tests.integration.persister.persister_rig import Rig, dead_letters
from tests.unit.persister.calls import call, encoded, turned_to_video

PARTITIONS = 2
AT_ONCE = 14
"""Some batches follow each other, so that one is acknowledged while the next is written."""

STEPS_OF_ALL = 60
"""They take more; fewer would mean that the killer is not heard any more."""

CALLS = [call(lines=6), turned_to_video(), call(lines=1), call(lines=2, end=False)]
TABLES = {
    "users": "user_id",
    "active_rooms": "room_id, user_1, user_2, started_at, chat_mode, status, version, messages, ended_at",
    "text_room_activity": "room_id, user_1_last_message_at, user_2_last_message_at, version",
    "chat_history": "room_id, user_id, partner_id, chat_mode, started_at, ended_at, duration_seconds, room_version",
}


async def begin(client: Client, pool: Pool, calls: list[list[Event]]) -> None:
    """Empty everything and publish: broken entries among the good ones."""
    await client.flushall()
    await client.set(keys.partitions(), PARTITIONS)
    await pool.execute("TRUNCATE users, active_rooms, chat_history CASCADE")
    for events in calls:
        stream = keys.events(keys.partition_of(events[0].room.room_id, PARTITIONS))
        for data in encoded(events):
            await client.xadd(stream, {"event": data})
        await client.xadd(stream, {"event": b"{broken"})


async def all_batches(rig: Rig) -> None:
    """Work until there is nothing new to read."""
    stop = asyncio.Event()
    read = rig.streams.read

    async def read_or_stop(count: int, _: int) -> list[Entry]:
        entries = await read(AT_ONCE, 1)
        if not entries:
            stop.set()
        return entries

    rig.streams.read = read_or_stop  # type: ignore[assignment, method-assign]
    await rig.worker.run(stop)


async def outcome(client: Client, pool: Pool) -> dict[str, Any]:
    """All that is in the tables and the dead letters, and what nobody has acknowledged."""
    found: dict[str, Any] = {
        table: sorted(map(repr, await pool.fetch(f"SELECT {columns} FROM {table}")))
        for table, columns in TABLES.items()
    }
    letters = await dead_letters(client)
    found["dead letters"] = sorted((letter[b"event"], letter[b"reason"]) for letter in letters)
    groups = [await client.xinfo_groups(keys.events(partition)) for partition in range(PARTITIONS)]
    found["left"] = [(group["pending"], group["lag"]) for (group,) in groups]
    return found


async def dies(redis_url: str, database_url: str, step: int) -> bool:
    """Let a worker work until it dies at a step, and its connections with it; False when it lived."""
    client = redis.connect(redis_url)
    pool = await postgres.create_pool(database_url, application="tests")
    try:
        return await run_until_death(all_batches(Rig(client, pool, "one")), step)
    finally:
        pool.terminate()
        await client.aclose()


@pytest.mark.parametrize("heir", ["another worker", "the same worker, started again"])
async def test_killed_at_any_step(
    redis_url: str,
    database_url: str,
    client: Client,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    heir: str,
) -> None:
    await begin(client, pool, CALLS)
    await asyncio.wait_for(all_batches(Rig(client, pool, "one")), 20)
    undisturbed = await outcome(client, pool)
    assert [len(undisturbed[table]) for table in TABLES] == [8, 4, 4, 4]
    assert (len(undisturbed["dead letters"]), undisturbed["left"]) == (4, [(0, 0)] * PARTITIONS)

    arm(monkeypatch)
    step = 1
    while True:
        await begin(client, pool, CALLS)
        if not await dies(redis_url, database_url, step):
            break
        name = "one" if heir.startswith("the same") else "two"
        # Entries must have been idle for a ms: the commands of the heir itself take longer.
        await asyncio.wait_for(all_batches(Rig(client, pool, name, claim_idle_seconds=0.001)), 20)
        assert await outcome(client, pool) == undisturbed, f"killed at step {step}"
        step += 1
    assert await outcome(client, pool) == undisturbed
    assert step > STEPS_OF_ALL

"""Calls that are over in `chat_history` of a real PostgreSQL."""

import random

import asyncpg
import pytest
from msgspec.structs import astuple

from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room.codec import Event
from keepline.room.rows import to_history
from persister.database import Database
from persister.fold import change_of, fold
from tests.integration.persister.persister_rig import Rig, all_acknowledged, dead_letters, publish, written
from tests.unit.persister.calls import call, encoded


async def write(pool: Pool, *batches: list[Event]) -> None:
    for batch in batches:
        await Database(pool, create_users=True).write(fold(map(change_of, encoded(batch))))


async def history(pool: Pool) -> list[asyncpg.Record]:
    return await pool.fetch(
        "SELECT room_id, user_id, partner_id, chat_mode, started_at, ended_at, duration_seconds, room_version"
        " FROM chat_history ORDER BY user_id"
    )


def expected(event: Event) -> list[tuple[object, ...]]:
    return [astuple(row) for row in sorted(to_history(event.room), key=lambda row: row.user_id)]


@pytest.mark.parametrize("seed", range(3))
async def test_both_users_have_the_call_once_however_its_events_come(pool: Pool, seed: int) -> None:
    events = call(lines=6)
    await write(pool, events[:-1])
    assert await history(pool) == []
    await write(pool, *([event] for event in random.Random(seed).choices(events, k=20)), events[-1:])
    assert list(map(tuple, await history(pool))) == expected(events[-1])
    before = await pool.fetch("SELECT xmin::text, * FROM chat_history")
    await write(pool, events)
    assert await pool.fetch("SELECT xmin::text, * FROM chat_history") == before


async def test_short_calls_leave_none(pool: Pool) -> None:
    await write(pool, call(lines=1))
    assert await history(pool) == []


async def test_a_history_that_refuses_calls_holds_up_no_room_and_a_replay_adds_them(
    client: Client, pool: Pool
) -> None:
    await pool.execute("ALTER TABLE chat_history ADD COLUMN mood TEXT NOT NULL DEFAULT 'fine'")
    await pool.execute("ALTER TABLE chat_history ALTER COLUMN mood DROP DEFAULT")
    calls = [call(lines=6) for _ in range(3)]
    for events in calls:
        await publish(client, events)
    async with Rig(client, pool, "one").running():
        for events in calls:
            await written(pool, events[-1])
        await all_acknowledged(client)
    letters = await dead_letters(client)
    assert {letter[b"event"] for letter in letters} == {encoded(events)[-1] for events in calls}
    assert all(b"mood" in letter[b"reason"] for letter in letters)

    await pool.execute("ALTER TABLE chat_history ALTER COLUMN mood DROP NOT NULL")
    await write(pool, *(events[-1:] for events in calls))
    assert len(await history(pool)) == 6

"""The rows of `text_room_activity` in a real PostgreSQL."""

import random

import asyncpg
import pytest
from msgspec.structs import astuple

from keepline.ops.postgres import Pool
from keepline.room.codec import Event
from keepline.room.commands import Command, Join, Post, Tick
from keepline.room.record import ChatMode
from keepline.room.rows import to_activity
from persister.database import Database
from persister.fold import change_of, fold
from tests.unit.persister.calls import call, changes, encoded, opening, turned_to_video


async def write(pool: Pool, *batches: list[Event]) -> None:
    for batch in batches:
        await Database(pool, create_users=True).write(fold(map(change_of, encoded(batch))))


async def activities(pool: Pool) -> list[asyncpg.Record]:
    return await pool.fetch(
        "SELECT room_id, user_1_last_message_at, user_2_last_message_at, warning_started_at, version"
        " FROM text_room_activity"
    )


def expected(event: Event) -> tuple[object, ...]:
    activity = to_activity(event.room)
    assert activity is not None
    return astuple(activity)


async def test_who_wrote_when_and_the_warning_stand_beside_the_room(pool: Pool) -> None:
    quiet: list[Command] = [Join(1, "n", "a"), Join(2, "n", "b"), Post(2, "hi"), *[Tick()] * 125]
    events = list(changes(opening(), quiet))
    await write(pool, events)
    assert list(map(tuple, await activities(pool))) == [expected(events[-1])]
    (row,) = await activities(pool)
    assert row["user_1_last_message_at"] is None
    assert row["user_2_last_message_at"] is not None
    assert row["warning_started_at"] is not None


@pytest.mark.parametrize("seed", range(3))
async def test_in_whatever_order_batches_come_the_newest_version_stays(pool: Pool, seed: int) -> None:
    events = call(lines=5)
    shuffled = random.Random(seed).sample(events, len(events))
    await write(pool, *([event] for event in shuffled))
    assert list(map(tuple, await activities(pool))) == [expected(events[-1])]
    before = await pool.fetch("SELECT xmin::text, * FROM text_room_activity")
    await write(pool, *([event] for event in events))
    assert await pool.fetch("SELECT xmin::text, * FROM text_room_activity") == before


@pytest.mark.parametrize("late", [False, True])
async def test_a_text_room_that_turned_to_video_keeps_its_row_as_it_was(pool: Pool, late: bool) -> None:
    events = turned_to_video()
    as_text = [event for event in events if event.room.chat_mode is ChatMode.TEXT]
    as_video = [event for event in events if event.room.chat_mode is ChatMode.VIDEO]
    await write(pool, *((as_video, as_text) if late else (as_text, as_video)))
    assert list(map(tuple, await activities(pool))) == [expected(as_text[-1])]
    assert await pool.fetchval("SELECT chat_mode FROM active_rooms") == "video"


async def test_a_video_room_has_no_activity(pool: Pool) -> None:
    await write(pool, call(opening(chat_mode=ChatMode.VIDEO)))
    assert await activities(pool) == []

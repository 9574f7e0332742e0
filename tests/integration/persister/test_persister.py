"""The worker from the streams to the rows, on a real Valkey and a real PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops import redis
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.codec import Event, encode_event
from keepline.room.record import Message
from persister.stream import Entry, EventStreams
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import (
    PARTITIONS,
    Rig,
    all_acknowledged,
    dead_letters,
    has_version,
    pending,
    publish,
    stored,
    written,
)
from tests.unit.persister.calls import call, encoded


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the worker runs after it."""


async def test_events_become_the_last_version_with_all_messages(client: Client, pool: Pool) -> None:
    events = call(lines=3)
    await publish(client, events)  # before the first start of any worker
    async with Rig(client, pool, "one").running():
        await written(pool, events[-1])
    row = await stored(pool, events[0].room.room_id)
    assert row is not None
    last = events[-1].room
    assert (row["status"], row["ended_reason"], row["chat_mode"]) == ("ended", "hangup", "text")
    assert round(row["ended_at"].timestamp() * 1000) == last.ended_at
    assert [message["text"] for message in row["messages"]] == ["line 1", "line 2", "line 3"]
    assert await pending(client) == 0


async def test_two_workers_share_the_streams(client: Client, pool: Pool) -> None:
    first, second = Rig(client, pool, "one"), Rig(client, pool, "two")
    calls = [call(lines=5) for _ in range(30)]
    async with first.running(), second.running():
        await asyncio.gather(*(publish(client, events) for events in calls))
        for events in calls:
            await written(pool, events[-1])
        await all_acknowledged(client)
    total = sum(len(events) for events in calls)
    assert sum(rig.value("entries_read_total", how="new") for rig in (first, second)) == total
    lengths = await pool.fetch("SELECT DISTINCT jsonb_array_length(messages) FROM active_rooms")
    assert [row[0] for row in lengths] == [5]


async def test_poison_goes_to_the_dead_letters_and_the_rest_is_written(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "one", create_users=False)
    good = [call() for _ in range(5)]
    for events in good:
        room = events[0].room
        await pool.execute(
            "INSERT INTO users (user_id) VALUES ($1), ($2)",
            UUID(room.side_1.user),
            UUID(room.side_2.user),
        )
    stranger = call(lines=0)
    event = good[0][1]
    silenced = encode_event(Event("post", event.room, Message(9, "u", "\0", 1)))
    poison_stream = keys.events(keys.partition_of(event.room.room_id, PARTITIONS))
    for events in (*good[:3], stranger, *good[3:]):
        await publish(client, events)
    await client.xadd(poison_stream, {"event": silenced})
    await client.xadd(poison_stream, {"event": b"{broken"})
    await client.xadd(poison_stream, {"something": b"else"})
    async with rig.running():
        for events in good:
            await written(pool, events[-1])
        await all_acknowledged(client)
    letters = await dead_letters(client)
    reasons = sorted(letter[b"reason"].decode().split(";")[0] for letter in letters)
    assert len(letters) == len(stranger) + 3
    assert sum("foreign key" in reason for reason in reasons) == len(stranger)
    assert {letter[b"event"] for letter in letters} == {*encoded(stranger), silenced, b"{broken", b""}
    assert await stored(pool, stranger[0].room.room_id) is None


async def test_a_worker_killed_between_commit_and_acknowledgement_loses_and_doubles_nothing(
    client: Client, pool: Pool
) -> None:
    events = call(lines=3)
    await publish(client, events)
    dead = Rig(client, pool, "dead")

    async def die(_: Iterable[Entry]) -> None:
        raise Killed

    dead.streams.acknowledge = die  # type: ignore[assignment, method-assign]
    task = asyncio.create_task(dead.worker.run(asyncio.Event()))
    with pytest.raises(Killed):
        await asyncio.wait_for(task, 10)
    assert await has_version(pool, events[-1])
    before = await pool.fetch("SELECT xmin::text, * FROM active_rooms")
    assert await pending(client) == len(events)

    heir = Rig(client, pool, "heir", claim_idle_seconds=0.1)
    async with heir.running():
        await all_acknowledged(client)
    assert heir.value("entries_read_total", how="claimed") == len(events)
    assert await pool.fetch("SELECT xmin::text, * FROM active_rooms") == before


async def test_entries_that_a_limit_deleted_unwritten_are_counted(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "heir", claim_idle_seconds=0.1)
    dead = EventStreams(client, "dead")
    await dead.prepare()
    await publish(client, call(lines=0))
    entries = await dead.read(100, 100)
    for partition in range(PARTITIONS):
        await client.xtrim(keys.events(partition), maxlen=0, approximate=False)

    async def counted() -> bool:
        return rig.value("entries_lost_total") == len(entries)

    condition: Callable[[], bool | Awaitable[bool]] = counted
    async with rig.running():
        await eventually(condition)
    assert await pending(client) == 0


async def test_a_wiped_redis_gets_its_groups_again(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "one")
    before, after = call(), call()
    async with rig.running():
        await publish(client, before)
        await written(pool, before[-1])
        await client.flushall()
        await publish(client, after)
        await written(pool, after[-1])
        await rig.chores.tidy(prune=True)


async def test_the_backlog_shows_in_the_metrics(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "one")
    await rig.streams.prepare()
    await publish(client, call(lines=2))
    await rig.streams.read(1, 100)
    await rig.chores.tidy(prune=False)
    assert rig.value("pending_entries") == 1
    assert rig.value("lag_entries") == len(call(lines=2)) - 1
    assert rig.value("stream_fill_ratio") == len(call(lines=2)) / keys.MAX_EVENTS
    assert 0 <= rig.value("lag_seconds") < 60


async def test_chores_survive_a_redis_that_is_away(pool: Pool) -> None:
    client = redis.connect("redis://127.0.0.1:1/0")
    rig = Rig(client, pool, "one")
    with pytest.raises(RedisConnectionError):
        await rig.streams.prepare()
    rig.streams._streams = {keys.events(0).encode(): 0}
    await rig.chores.tidy(prune=True)
    await client.aclose()

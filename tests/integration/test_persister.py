"""The persister's parts against a real Valkey and a real PostgreSQL."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops import postgres, redis
from keepline.ops.health import Health
from keepline.ops.postgres import Pool
from keepline.ops.redis import Client
from keepline.room import keys
from keepline.room.codec import Event, encode_event
from keepline.room.record import Message
from persister.database import Database, NotNow, RowFault
from persister.fold import change_of, fold
from persister.housekeeping import Housekeeping
from persister.metrics import Metrics
from persister.stream import GROUP, Entry, EventStreams, agree_on_partitions
from persister.worker import Limits, Worker
from tests.helpers.waiting import eventually
from tests.unit.persister.calls import call, encoded, said

PARTITIONS = 16


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the worker runs after it."""


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    connected = redis.connect(redis_url)
    yield connected
    await connected.aclose()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    opened = await postgres.create_pool(database_url, application="tests")
    yield opened
    await opened.close()


class Rig:
    """One worker with its own name, as the program puts it together."""

    def __init__(
        self,
        client: Client,
        pool: Pool,
        name: str,
        *,
        claim_idle_seconds: float = 30,
        create_users: bool = True,
    ) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.streams = EventStreams(client, name)
        self.database = Database(pool, create_users=create_users)
        health = Health(time.monotonic)
        probes = {name: health.probe(name) for name in ("redis", "postgres")}
        limits = Limits(100, claim_idle_seconds, 0.2)
        self.worker = Worker(self.streams, self.database, self.metrics, limits, **probes)
        self.chores = Housekeeping(self.streams, self.database, self.metrics, **probes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"keepline_persister_{name}", labels) or 0.0


async def publish(client: Client, events: Iterable[Event]) -> None:
    for event in events:
        stream = keys.events(keys.partition_of(event.room.room_id, PARTITIONS))
        await client.xadd(stream, {"event": encode_event(event)})


async def stored(pool: Pool, room_id: str) -> asyncpg.Record | None:
    return await pool.fetchrow("SELECT * FROM active_rooms WHERE room_id = $1", UUID(room_id))


async def has_version(pool: Pool, event: Event) -> bool:
    row = await stored(pool, event.room.room_id)
    return row is not None and row["version"] == event.room.version


async def written(pool: Pool, event: Event) -> None:
    """Wait until the room of an event has its version."""
    check: Callable[[], bool | Awaitable[bool]] = partial(has_version, pool, event)
    await eventually(check)


async def all_acknowledged(client: Client) -> None:
    """Wait until no entry is left unacknowledged."""

    async def check() -> bool:
        return await pending(client) == 0

    condition: Callable[[], bool | Awaitable[bool]] = check
    await eventually(condition)


async def pending(client: Client) -> int:
    return sum([(await client.xpending(keys.events(p), GROUP))["pending"] for p in range(PARTITIONS)])


async def dead_letters(client: Client) -> list[dict[bytes, bytes]]:
    found: list[Any] = [await client.xrange(keys.dead_letters(p)) for p in range(PARTITIONS)]
    return [fields for letters in found for _, fields in letters]


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


async def test_a_batch_delivered_again_changes_nothing(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    batch = fold(map(change_of, encoded(call())))
    assert await database.write(batch) == 2  # the room, and its messages
    before = await pool.fetch("SELECT xmin::text, * FROM active_rooms")
    assert await database.write(batch) == 0
    assert await pool.fetch("SELECT xmin::text, * FROM active_rooms") == before


async def test_an_older_batch_that_comes_late_still_adds_its_messages(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    events = call(lines=4)
    changes = [change_of(data) for data in encoded(events)]
    await database.write(fold(changes[5:]))
    await database.write(fold(changes[:5]))
    row = await stored(pool, events[0].room.room_id)
    assert row is not None
    assert row["version"] == events[-1].room.version
    assert [message["seq"] for message in row["messages"]] == [m.seq for m in said(events)]


async def test_batches_of_two_connections_in_any_order_agree(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    calls = [call(lines=6) for _ in range(5)]
    changes = [change_of(data) for events in calls for data in encoded(events)] * 2
    random.Random(7).shuffle(changes)
    batches = [fold(changes[start : start + 9]) for start in range(0, len(changes), 9)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(database.write(batch) for batch in batches))
    for events in calls:
        row = await stored(pool, events[0].room.room_id)
        assert row is not None
        assert (row["version"], len(row["messages"])) == (events[-1].room.version, 6)


async def test_only_the_last_thousand_messages_are_kept(pool: Pool) -> None:
    database = Database(pool, create_users=True)
    event = call(lines=1)[-2]
    for start in range(1, 1300, 130):
        lines = [Message(seq, "u", "x", seq) for seq in range(start, start + 130)]
        data = [encode_event(Event("post", event.room, line)) for line in lines]
        await database.write(fold(map(change_of, data)))
    row = await stored(pool, event.room.room_id)
    assert row is not None
    assert [message["seq"] for message in row["messages"]] == list(range(301, 1301))


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


async def test_two_workers_that_give_up_on_an_entry_bury_it_once(client: Client) -> None:
    one, two = EventStreams(client, "one"), EventStreams(client, "two")
    await one.prepare()
    await two.prepare()
    await client.xadd(keys.events(3), {"event": b"{broken"})
    (entry,) = await one.read(10, 100)
    assert await two.claim(10, 0) == ([entry], 0)
    await one.bury(entry, "broken")
    await two.bury(entry, "broken")
    assert [letter[b"reason"] for letter in await dead_letters(client)] == [b"broken"]


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


async def test_only_acknowledged_entries_are_trimmed(client: Client) -> None:
    streams = EventStreams(client, "one")
    await streams.prepare()
    stream = keys.events(5)
    ids: list[Any] = [await client.xadd(stream, {"event": b"%d" % number}) for number in range(6)]
    assert await streams.trim() == 0
    entries = await streams.read(64, 100)  # four a partition
    assert [entry.id for entry in entries] == ids[:4]
    await streams.acknowledge([entries[0], entries[2]])
    assert await streams.trim() == 1
    backlog = await streams.backlog()
    assert (backlog.unread, backlog.unacknowledged) == (2, 2)
    assert backlog.oldest_ms == int(ids[1].split(b"-")[0])
    await streams.acknowledge([entries[1], entries[3]])
    assert await streams.trim() == 3
    assert await client.xlen(stream) == 2
    backlog = await streams.backlog()
    assert (backlog.unread, backlog.unacknowledged) == (2, 0)
    assert backlog.oldest_ms == int(ids[4].split(b"-")[0])
    await streams.acknowledge(await streams.read(64, 100))
    assert await streams.trim() == 2
    assert (await streams.backlog()).oldest_ms is None


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


async def test_the_count_of_partitions_is_decided_once(client: Client) -> None:
    assert await agree_on_partitions(client) == keys.DEFAULT_PARTITIONS
    assert await agree_on_partitions(client, 4) == keys.DEFAULT_PARTITIONS
    await client.set(keys.PARTITIONS, 4)
    assert await agree_on_partitions(client) == 4
    await client.set(keys.PARTITIONS, 0)
    with pytest.raises(ValueError, match="keepline:partitions"):
        await agree_on_partitions(client)


async def test_consumers_are_forgotten_only_when_they_are_silent_and_own_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persister.stream._GONE_MS", -1)
    stream = keys.events(0)
    await client.xadd(stream, {"event": b"x"})
    owner, idler = EventStreams(client, "owner"), EventStreams(client, "idler")
    await owner.prepare()
    await idler.prepare()
    await owner.read(10, 10)
    await idler.read(10, 10)
    await idler.remove_gone_consumers()
    names = [consumer["name"] for consumer in await client.xinfo_consumers(stream, GROUP)]
    assert names == [b"owner"]


async def test_the_backlog_shows_in_the_metrics(client: Client, pool: Pool) -> None:
    rig = Rig(client, pool, "one")
    await rig.streams.prepare()
    await publish(client, call(lines=2))
    await rig.streams.read(1, 100)
    await rig.chores.tidy(prune=False)
    assert rig.value("pending_entries") == 1
    assert rig.value("lag_entries") == len(call(lines=2)) - 1
    assert 0 <= rig.value("lag_seconds") < 60


async def test_faults_are_told_apart(pool: Pool, database_url: str) -> None:
    batch = fold(map(change_of, encoded(call())))
    with pytest.raises(RowFault, match="foreign key"):
        await Database(pool, create_users=False).write(batch)
    await pool.execute("ALTER TABLE active_rooms RENAME TO elsewhere")
    with pytest.raises(NotNow) as missing:
        await Database(pool, create_users=True).write(batch)
    assert missing.value.cause == "refused"
    with pytest.raises(NotNow):
        await Database(pool, create_users=True).ping()
    await pool.execute(
        "ALTER DATABASE {} SET default_transaction_read_only = on".format(database_url.rpartition("/")[2])
    )
    read_only = await postgres.create_pool(database_url, application="tests")
    await pool.execute("ALTER TABLE elsewhere RENAME TO active_rooms")
    with pytest.raises(NotNow) as refused:
        await Database(read_only, create_users=True).write(batch)
    assert refused.value.cause == "read_only"
    await read_only.close()


async def test_a_fault_names_the_rule_and_not_the_row(pool: Pool) -> None:
    (event,) = call(lines=0)[:1]
    first, second = (side.user.encode() for side in event.room.sides)
    batch = fold([change_of(encode_event(event).replace(second, first))])
    with pytest.raises(RowFault, match="check constraint") as fault:
        await Database(pool, create_users=True).write(batch)
    assert event.room.room_id not in str(fault.value)


@pytest.mark.parametrize("url", ["postgresql://u:p@127.0.0.1:1/x", "postgresql://127.0.0.1/x?sslmode=odd"])
async def test_what_keeps_us_from_connecting_is_never_a_rows_fault(url: str) -> None:
    pool = await postgres.create_pool(url, application="tests")
    with pytest.raises(NotNow):
        await Database(pool, create_users=True).write(fold(map(change_of, encoded(call()))))
    pool.terminate()


async def test_chores_survive_a_redis_that_is_away(pool: Pool) -> None:
    client = redis.connect("redis://127.0.0.1:1/0")
    rig = Rig(client, pool, "one")
    with pytest.raises(RedisConnectionError):
        await rig.streams.prepare()
    rig.streams._streams = {keys.events(0).encode(): 0}
    await rig.chores.tidy(prune=True)
    await client.aclose()

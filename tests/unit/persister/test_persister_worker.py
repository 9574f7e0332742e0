"""The worker between a scripted stream and a scripted database: when it acknowledges, retries and buries."""

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops.health import Health
from persister.database import NotNow, RowFault
from persister.fold import Batch
from persister.metrics import Metrics
from persister.stream import Entry, StreamsLost
from persister.worker import Limits, Worker
from tests.helpers.waiting import eventually
from tests.unit.persister.calls import call, encoded, opening

LIMITS = Limits(batch_entries=100, claim_idle_seconds=30, retry_cap_seconds=0.1)
WRITTEN = ("commit", "acknowledge", "acknowledged")


class Streams:
    """Gives out prepared batches and notes what becomes of them, in one log with the database."""

    def __init__(self, log: list[str], batches: Iterable[list[Entry] | Exception]) -> None:
        self.log = log
        self.batches = list(batches)
        self.claimable: list[list[Entry]] = []
        self.own: list[list[Entry]] = []
        self.acknowledged: list[bytes] = []
        self.buried: dict[bytes, str] = {}
        self.fail_acknowledge = 0
        self.may_acknowledge = asyncio.Event()
        self.may_acknowledge.set()
        self.empty_reads = 0
        self.drained = asyncio.Event()

    async def prepare(self) -> None:
        self.log.append("prepare")

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        if not self.batches:
            self.empty_reads += 1
            if self.empty_reads == 1:  # perhaps ahead of a batch that is still being written
                return []
            self.drained.set()
            await asyncio.Event().wait()
        batch = self.batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch

    async def read_own(self, count: int) -> list[Entry]:
        return self.own.pop(0) if self.own else []

    async def claim(self, count: int, idle_ms: int) -> tuple[list[Entry], int]:
        return (self.claimable.pop(0) if self.claimable else []), 0

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        self.log.append("acknowledge")
        await self.may_acknowledge.wait()
        if self.fail_acknowledge:
            self.fail_acknowledge -= 1
            raise RedisConnectionError("gone")
        self.acknowledged += [entry.id for entry in entries]
        self.log.append("acknowledged")

    async def bury(self, entry: Entry, reason: str) -> None:
        self.buried[entry.id] = reason


class Tables:
    """Fails as told, else notes the rooms that were written."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.failures: list[Exception] = []
        self.poison: set[UUID] = set()
        self.takes_history = True
        self.written: list[UUID] = []
        self.on_failure: Callable[[], None] = lambda: None

    async def write(self, batch: Batch) -> int:
        if self.failures:
            self.on_failure()
            raise self.failures.pop(0)
        rooms = [row.room_id for row in batch.rows]
        if self.poison.intersection(rooms):
            raise RowFault("no such user")
        if batch.history and not self.takes_history:
            raise RowFault("mood may not be null")
        self.written += rooms
        self.log.append("commit")
        return len(rooms)


class Bench:
    """A worker with its scripted neighbours."""

    def __init__(self, *batches: list[Entry] | Exception) -> None:
        self.log: list[str] = []
        self.streams = Streams(self.log, batches)
        self.tables = Tables(self.log)
        self.registry = CollectorRegistry()
        self.health = Health(lambda: 0.0)
        self.redis, self.postgres = self.health.probe("redis"), self.health.probe("postgres")
        self.writes = self.health.last_try("writes")
        self.stop = asyncio.Event()
        self.worker = Worker(
            self.streams,  # type: ignore[arg-type]
            self.tables,  # type: ignore[arg-type]
            Metrics(self.registry),
            LIMITS,
            redis=self.redis,
            postgres=self.postgres,
            writes=self.writes,
        )

    async def run(self) -> None:
        """Work until there is nothing left to read."""
        task = asyncio.create_task(self.worker.run(self.stop))
        await asyncio.wait_for(self.streams.drained.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def rounds(self) -> int:
        """How many batches were written, all of them acknowledged after their commit."""
        words = [word for word in self.log if word in WRITTEN]
        for length in range(len(words)):
            commits, begun, done = (words[:length].count(word) for word in WRITTEN)
            assert done <= begun <= commits <= done + 2
        commits, begun, done = map(words.count, WRITTEN)
        assert commits == begun == done
        return done

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"keepline_persister_{name}", labels) or 0.0


def entries(*data: bytes) -> list[Entry]:
    return [Entry(0, b"%d-0" % number, event) for number, event in enumerate(data, 1)]


async def test_a_batch_is_acknowledged_after_its_commit() -> None:
    bench = Bench(entries(*encoded(call())))
    await bench.run()
    assert bench.log == ["prepare", *WRITTEN]
    assert len(bench.streams.acknowledged) == len(call())
    assert bench.postgres.status == bench.redis.status == "ok"
    assert bench.count("batches_total") == 1


async def test_a_batch_is_tried_until_postgres_takes_it() -> None:
    bench = Bench(entries(*encoded(call())))
    bench.tables.failures = [NotNow("connection", "away"), NotNow("conflict", "deadlock")]
    await bench.run()
    assert bench.log == ["prepare", *WRITTEN]
    assert bench.count("retries_total", cause="connection") == 1
    assert bench.count("retries_total", cause="conflict") == 1


async def test_a_row_at_fault_is_buried_alone() -> None:
    firsts = [opening() for _ in range(7)]
    batch = entries(*(encoded(call(first, lines=0, end=False))[0] for first in firsts))
    bench = Bench(batch)
    bench.tables.poison = {UUID(firsts[3].room_id)}
    await bench.run()
    assert bench.streams.buried == {b"4-0": "no such user"}
    assert sorted(bench.streams.acknowledged) == [b"1-0", b"2-0", b"3-0", b"5-0", b"6-0", b"7-0"]
    assert len(bench.tables.written) == 6
    assert bench.count("dead_letters_total", cause="row") == 1


async def test_a_call_that_the_history_refuses_is_buried_and_its_room_written() -> None:
    long, short = call(lines=5), call(lines=0)
    bench = Bench(entries(encoded(long)[-1], encoded(short)[-1]))
    bench.tables.takes_history = False
    await bench.run()
    assert bench.streams.buried == {b"1-0": "mood may not be null"}
    assert bench.streams.acknowledged == [b"2-0"]
    assert sorted(bench.tables.written) == sorted(UUID(events[0].room.room_id) for events in (long, short))
    assert bench.count("dead_letters_total", cause="history") == 1


async def test_an_unreadable_event_is_buried_and_the_rest_written() -> None:
    bench = Bench(entries(b"{", encoded(call())[0]))
    await bench.run()
    assert list(bench.streams.buried) == [b"1-0"]
    assert bench.streams.acknowledged == [b"2-0"]
    assert bench.count("dead_letters_total", cause="event") == 1


async def test_entries_of_dead_workers_come_before_new_ones() -> None:
    old, new = call(lines=0), call(lines=0)
    bench = Bench(entries(*encoded(new)))
    bench.streams.claimable = [[Entry(3, b"0-1", encoded(old)[0])]]
    await bench.run()
    assert bench.tables.written == [UUID(old[0].room.room_id), UUID(new[0].room.room_id)]
    assert bench.count("entries_read_total", how="claimed") == 1


async def test_lost_streams_are_prepared_again() -> None:
    bench = Bench(StreamsLost("NOGROUP"), entries(*encoded(call())))
    await bench.run()
    assert bench.log == ["prepare", "prepare", *WRITTEN]


async def test_redis_away_is_waited_for() -> None:
    bench = Bench(RedisConnectionError("refused"), entries(*encoded(call())))
    await bench.run()
    assert bench.streams.acknowledged
    assert bench.count("retries_total", cause="redis") == 1
    assert bench.redis.failed_at is not None


async def test_an_answer_lost_after_the_commit_leaves_the_entries_for_a_claim() -> None:
    events = entries(*encoded(call()))
    bench = Bench(events, [])
    bench.streams.fail_acknowledge = 1
    await bench.run()
    assert bench.log == ["prepare", "commit", "acknowledge"]
    assert bench.streams.acknowledged == []
    assert bench.count("retries_total", cause="redis") == 1


async def test_a_worker_that_is_stopped_while_postgres_is_away_leaves_its_batch() -> None:
    bench = Bench(entries(*encoded(call())))
    bench.tables.failures = [NotNow("connection", "away")]
    bench.tables.on_failure = bench.stop.set
    await asyncio.wait_for(bench.worker.run(bench.stop), 10)
    assert bench.log == ["prepare"]
    assert bench.streams.acknowledged == []


async def test_a_worker_that_is_stopped_finishes_what_it_has_read() -> None:
    bench = Bench(*(entries(*encoded(call())) for _ in range(4)))
    write = bench.tables.write

    async def write_and_stop(batch: Batch) -> int:
        if len(bench.tables.written) == 1:
            bench.stop.set()
        return await write(batch)

    bench.tables.write = write_and_stop  # type: ignore[method-assign]
    await asyncio.wait_for(bench.worker.run(bench.stop), 10)
    assert bench.rounds() == 3
    assert len(bench.streams.batches) == 1


async def test_a_worker_that_is_stopped_finishes_its_acknowledgement() -> None:
    bench = Bench(entries(*encoded(call())), [])
    bench.streams.may_acknowledge.clear()
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: "acknowledge" in bench.log)
    bench.stop.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    bench.streams.may_acknowledge.set()
    await asyncio.wait_for(task, 10)
    assert bench.rounds() == 1


async def test_a_worker_that_is_stopped_does_not_wait_for_redis_to_come_back() -> None:
    bench = Bench(entries(*encoded(call())), [])
    bench.streams.fail_acknowledge = 1
    bench.streams.may_acknowledge.clear()
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: "acknowledge" in bench.log)
    bench.stop.set()
    bench.streams.may_acknowledge.set()
    await asyncio.wait_for(task, 10)
    assert bench.log == ["prepare", "commit", "acknowledge"]
    assert bench.count("retries_total", cause="redis") == 1


async def test_a_worker_that_is_cancelled_leaves_no_acknowledgement_behind() -> None:
    bench = Bench(entries(*encoded(call())), [])
    bench.streams.may_acknowledge.clear()
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: "acknowledge" in bench.log)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bench.streams.may_acknowledge.set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bench.streams.acknowledged == []


async def test_the_next_batch_is_read_while_one_is_written_and_no_more() -> None:
    bench = Bench(*(entries(*encoded(call())) for _ in range(4)))
    may_write = asyncio.Event()
    write = bench.tables.write

    async def wait_and_write(batch: Batch) -> int:
        await may_write.wait()
        return await write(batch)

    bench.tables.write = wait_and_write  # type: ignore[method-assign]
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: len(bench.streams.batches) == 2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert (len(bench.streams.batches), bench.log) == (2, ["prepare"])
    may_write.set()
    await asyncio.wait_for(bench.streams.drained.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.rounds() == 4


async def test_a_batch_is_written_while_the_one_before_is_acknowledged_and_no_more() -> None:
    bench = Bench(*(entries(*encoded(call())) for _ in range(4)))
    bench.streams.may_acknowledge.clear()
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: bench.log.count("commit") == 2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.log == ["prepare", "commit", "acknowledge", "commit"]
    bench.streams.may_acknowledge.set()
    await asyncio.wait_for(bench.streams.drained.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.rounds() == 4


async def test_entries_are_not_read_again_while_they_are_acknowledged() -> None:
    bench = Bench(RedisConnectionError("gone"), entries(*encoded(call())))
    bench.streams.own = [[], entries(*encoded(call()))]
    bench.streams.may_acknowledge.clear()
    task = asyncio.create_task(bench.worker.run(bench.stop))
    await eventually(lambda: "acknowledge" in bench.log)
    bench.streams.own = [entries(*encoded(call()))]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(bench.streams.own) == 1
    bench.streams.may_acknowledge.set()
    await asyncio.wait_for(bench.streams.drained.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.rounds() == 3


async def test_what_was_read_ahead_is_written_though_an_acknowledgement_was_lost() -> None:
    bench = Bench(*(entries(*encoded(call())) for _ in range(3)))
    bench.streams.fail_acknowledge = 1
    await bench.run()
    assert bench.log.count("commit") == 3


async def test_what_was_written_during_an_acknowledgement_that_was_lost_is_read_again_too() -> None:
    both = entries(*encoded(call()), *encoded(call()))
    half = len(both) // 2
    bench = Bench(both[:half], both[half:], [])
    bench.streams.own = [[], both]
    bench.streams.fail_acknowledge = 1
    await bench.run()
    assert bench.log == ["prepare", "commit", "acknowledge", "commit", *WRITTEN]
    assert bench.streams.acknowledged == [entry.id for entry in both]


async def test_an_error_of_our_own_ends_the_worker() -> None:
    bench = Bench(KeyError("bug"))
    with pytest.raises(KeyError):
        await asyncio.wait_for(bench.worker.run(bench.stop), 10)


async def test_what_a_lost_answer_brought_is_read_again_at_once() -> None:
    first, second = call(), call()
    bench = Bench(RedisConnectionError("gone"), entries(*encoded(second)))
    bench.streams.own = [[], entries(*encoded(first)), []]
    await bench.run()
    assert bench.tables.written == [UUID(events[0].room.room_id) for events in (first, second)]
    assert bench.streams.own == []
    assert bench.count("entries_read_total", how="own") == len(first)

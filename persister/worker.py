"""The main loop of a persister: read, fold, write, acknowledge.

An entry is acknowledged after the commit and never before. So a persister can die at any time: another one claims its
entries, and writing them twice changes nothing. While Postgres works on a batch, the previous one is acknowledged and
the next one is read and folded, but no more than that. While Postgres is away, the worker keeps retrying its batch, and
the streams wait.

No row delays the others. If a batch is rejected because of a row, it is written in halves until that row is alone, and
its entry becomes a dead letter. The same happens if a batch waits for a lock, but then the entry stays unacknowledged:
it returns when it is claimed, and the lock may be gone by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace
from redis.exceptions import RedisError

from keepline.ops.backoff import Backoff
from keepline.ops.health import LastTry, Probe
from keepline.room.reports import Report
from persister.database import Database, NotNow, RowFault
from persister.fold import AnyChange, Batch, Change, Unwritable, change_of, fold, subject_of
from persister.metrics import Metrics
from persister.stream import Entry, EventStreams, StreamsLost

_BLOCK_MS = 1000
_WORD_LIMIT = 500
_TIMEOUTS_BEFORE_HALVING = 2

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The worker was asked to stop while it waited. What it had read stays unacknowledged."""


class Waiting(Exception):
    """A row of the batch waits for a lock, or takes too long. The others need not wait with it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Batch sizes, and how long an entry of a silent persister stays unclaimed."""

    batch_entries: int
    claim_idle_seconds: float
    retry_cap_seconds: float


class _Task(Struct, frozen=True, gc=False):
    entry: Entry
    change: AnyChange


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch as it was read: the writable changes, their folded form, and unwritable entries with the reason."""

    tasks: Sequence[_Task]
    batch: Batch
    unreadable: Sequence[tuple[Entry, str]]


class Worker:
    """Moves events from the streams to the database until it is told to stop."""

    def __init__(
        self,
        streams: EventStreams,
        database: Database,
        metrics: Metrics,
        limits: Limits,
        *,
        redis: Probe,
        postgres: Probe,
        writes: LastTry,
    ) -> None:
        """`redis` and `postgres` get each success and failure of the two servers, `writes` those of each batch."""
        self._streams = streams
        self._database = database
        self._metrics = metrics
        self._limits = limits
        self._redis = redis
        self._postgres = postgres
        self._writes = writes
        self._prepared = False
        self._own_left = True  # this consumer may have pending entries from before
        self._claim_at = 0.0
        self._backoff = Backoff(0.05, limits.retry_cap_seconds)
        self._ahead: asyncio.Task[_Work | None] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Finishes what was read by then, unless Postgres is away."""
        try:
            await self._run(stop)
        finally:
            unfinished = [task for task in (self._ahead, self._acknowledging) if task is not None]
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _run(self, stop: asyncio.Event) -> None:
        while not (stop.is_set() and self._ahead is None and self._acknowledging is None):
            try:
                work = await self._next(stop)
                if work is None:
                    self._backoff.reset()
                else:
                    self._look_ahead(stop)
                    await self._finish(work, stop)
            except StreamsLost as error:
                _log.warning("streams_lost", error=str(error))
                self._prepared = False
                await _sleep(self._backoff.next(), stop)
            except (RedisError, OSError) as error:
                self._own_left = True
                self._redis.failed(error)
                self._metrics.retries.labels("redis").inc()
                delay = self._backoff.next()
                _log.warning("redis_unavailable", error=str(error), retry_in_ms=round(delay * 1000))
                await _sleep(delay, stop)
            except Stopped:
                _log.warning("batch_left_for_others", reason="stopped while Postgres was away")

    async def _next(self, stop: asyncio.Event) -> _Work | None:
        """Return the next batch, if there is one.

        That is what was read ahead, entries of a lost answer, or, at intervals, entries of dead persisters.
        """
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            work = await ahead
        else:
            await self._acknowledged()  # otherwise its entries could be read again meanwhile
            if stop.is_set():
                return None
            if not self._prepared:
                await self._streams.prepare()
                self._prepared = True
            work = _decode(await self._read_own() or await self._claim() or await self._read())
        self._redis.succeeded()
        return work

    def _look_ahead(self, stop: asyncio.Event) -> None:
        """Start to read the next batch, unless other entries than new ones are due."""
        if not (stop.is_set() or self._own_left or time.monotonic() >= self._claim_at):
            self._ahead = asyncio.create_task(self._read_decoded())

    async def _read_decoded(self) -> _Work | None:
        return _decode(await self._read())

    async def _read_own(self) -> list[Entry]:
        if not self._own_left:
            return []
        entries = await self._streams.read_own(self._limits.batch_entries)
        self._own_left = bool(entries)
        self._metrics.entries_read.labels("own").inc(len(entries))
        return entries

    async def _claim(self) -> list[Entry]:
        now = time.monotonic()
        if now < self._claim_at:
            return []
        idle_ms = round(self._limits.claim_idle_seconds * 1000)
        entries, lost = await self._streams.claim(self._limits.batch_entries, idle_ms)
        if lost:
            self._metrics.entries_lost.inc(lost)
            _log.error(
                "entries_lost", count=lost, reason="a stream ran into its limit before they were written"
            )
        if not entries:  # there may be more: ask again right after this batch
            self._claim_at = now + self._limits.claim_idle_seconds / 2
        self._metrics.entries_read.labels("claimed").inc(len(entries))
        return entries

    async def _read(self) -> list[Entry]:
        entries = await self._streams.read(self._limits.batch_entries, _BLOCK_MS)
        self._metrics.entries_read.labels("new").inc(len(entries))
        return entries

    async def _finish(self, work: _Work, stop: asyncio.Event) -> None:
        """Finish every entry: write it or make it a dead letter, and acknowledge it. Raises Stopped."""
        started = time.monotonic()
        for entry, reason in work.unreadable:
            await self._bury(entry, "event", reason)
        if work.tasks:
            await self._write(work, stop)
        self._metrics.batch_seconds.observe(time.monotonic() - started)

    async def _write(self, work: _Work, stop: asyncio.Event) -> None:
        """Write a batch. If a row is at fault or has to wait, write all but that row."""
        try:
            await self._commit(work.batch, stop, timeouts=_TIMEOUTS_BEFORE_HALVING)
        except (RowFault, Waiting) as error:
            # Sorted, because events of one room usually share a fault, so that fewer halves contain it.
            await self._halve(sorted(work.tasks, key=_subject), error, stop)
        else:
            await self._acknowledge(work.tasks)

    async def _halve(self, tasks: Sequence[_Task], error: RowFault | Waiting, stop: asyncio.Event) -> None:
        """Write tasks that failed together in halves, until those at fault are alone.

        Tasks that wait belong to one room, and wait for the same lock.
        """
        if isinstance(error, Waiting) and _subject(tasks[0]) == _subject(tasks[-1]):
            self._postpone(tasks, error)
            return
        if len(tasks) == 1:
            await self._give_up(tasks[0], error, stop)
            return
        middle = len(tasks) // 2
        for half in (tasks[:middle], tasks[middle:]):
            try:
                await self._commit(fold(task.change for task in half), stop)
            except (RowFault, Waiting) as fault:
                await self._halve(half, fault, stop)
            else:
                await self._acknowledge(half)

    async def _acknowledge(self, tasks: Sequence[_Task]) -> None:
        """Start to acknowledge committed entries, once the previous acknowledgement has finished.

        Raises the error of the previous one. These entries are then not acknowledged either, and will be written again.
        """
        await self._acknowledged()
        self._acknowledging = asyncio.create_task(self._mark_done(tasks))

    async def _mark_done(self, tasks: Sequence[_Task]) -> None:
        await self._streams.acknowledge(task.entry for task in tasks)

    async def _acknowledged(self) -> None:
        """Wait until no acknowledgement is in progress. Raises its error."""
        if self._acknowledging is not None:
            acknowledging, self._acknowledging = self._acknowledging, None
            await acknowledging
            self._backoff.reset()

    def _postpone(self, tasks: Sequence[_Task], reason: Waiting) -> None:
        """Leave entries until they are claimed again, and process new ones first."""
        self._metrics.postponed.inc(len(tasks))
        self._claim_at = time.monotonic() + self._limits.claim_idle_seconds
        _log.warning("entries_postponed", count=len(tasks), reason=str(reason), **_room_of(tasks[0].change))

    async def _give_up(self, task: _Task, error: RowFault | Waiting, stop: asyncio.Event) -> None:
        """Make an entry a dead letter. If only the history rejected it, the room is written, and a replay adds the
        history.

        `chat_history` may belong to the app, and reject rows for its own reasons.
        """
        cause, reason = "row", str(error)
        if isinstance(task.change, Change) and task.change.history:
            try:
                await self._commit(fold([replace(task.change, history=())]), stop)
                cause = "history"
            except RowFault as other:
                reason = str(other)
            except Waiting as waiting:
                self._postpone([task], waiting)
                return
        await self._bury(task.entry, cause, reason, task.change)

    async def _commit(self, batch: Batch, stop: asyncio.Event, timeouts: int = 1) -> None:
        """Write until it succeeds or can never succeed. Raises RowFault, Waiting after repeated timeouts, or
        Stopped.
        """
        backoff = Backoff(0.05, self._limits.retry_cap_seconds)
        while True:
            try:
                written = await self._database.write(batch)
            except RowFault as error:
                self._writes.failed(str(error))
                raise
            except NotNow as error:
                timeouts -= error.cause == "timeout"
                await self._wait_out(error, backoff.next(), stop)
                if not timeouts:
                    raise Waiting(str(error)) from error
            else:
                self._postgres.succeeded()
                self._writes.succeeded()
                self._metrics.batches.inc()
                self._metrics.last_commit.set_to_current_time()
                self._metrics.rows_written.inc(written)
                return

    async def _wait_out(self, error: NotNow, delay: float, stop: asyncio.Event) -> None:
        """Wait before a retry. Raises Stopped."""
        self._postgres.failed(error)
        self._writes.failed(str(error))
        self._metrics.retries.labels(error.cause).inc()
        _log.warning("write_failed", cause=error.cause, error=str(error), retry_in_ms=round(delay * 1000))
        await _sleep(delay, stop)
        if stop.is_set():
            raise Stopped from error

    async def _bury(self, entry: Entry, cause: str, reason: str, change: AnyChange | None = None) -> None:
        reason = reason[:_WORD_LIMIT]
        await self._streams.bury(entry, reason)
        self._metrics.dead_letters.labels(cause).inc()
        _log.error("dead_letter", cause=cause, reason=reason, **_room_of(change), **_place(entry))


def _decode(entries: Sequence[Entry]) -> _Work | None:
    """Convert entries to a batch; None for no entries."""
    if not entries:
        return None
    tasks, unreadable = [], []
    for entry in entries:
        try:
            tasks.append(_Task(entry, change_of(entry.data)))
        except Unwritable as error:
            unreadable.append((entry, str(error)))
    return _Work(tasks, fold(task.change for task in tasks), unreadable)


def _subject(task: _Task) -> str:
    return subject_of(task.change)


def _room_of(change: AnyChange | None) -> dict[str, str]:
    return {"room": subject_of(change)} if isinstance(change, Change | Report) else {}


def _place(entry: Entry) -> dict[str, Any]:
    return {"partition": entry.partition, "entry": entry.id.decode()}


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    """Wait until `stop` is set, but no longer than the given time."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return

"""The worker: read, fold, write, acknowledge.

An entry is acknowledged after the commit and never before, so a worker may die at any moment: its entries are
claimed by another one, and writing them a second time changes nothing. While Postgres is busy with a batch the one
before is acknowledged and the next one read and folded, but not more: while Postgres is away the worker keeps trying
its batch, and the streams wait.

No row holds up the others. A batch that is refused for a row is written by halves until the row stands alone, and that
one is buried. So is a batch that waits for a lock, but there the row stays unacknowledged: it comes back when it is
claimed, and the lock may be gone.
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
    """The worker was asked to stop while it waited; what it had read stays unacknowledged."""


class Waiting(Exception):
    """Something in a batch waits for a lock, or takes too long; the rest need not wait with it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, and how long until an entry of a silent worker is claimed."""

    batch_entries: int
    claim_idle_seconds: float
    retry_cap_seconds: float


class _Task(Struct, frozen=True, gc=False):
    entry: Entry
    change: AnyChange


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch as it was read: what can be written, the same folded, and what cannot be written, with the reason."""

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
        """`redis` and `postgres` are told of every proof for and against the two servers, `writes` of every batch."""
        self._streams = streams
        self._database = database
        self._metrics = metrics
        self._limits = limits
        self._redis = redis
        self._postgres = postgres
        self._writes = writes
        self._prepared = False
        self._own_left = True  # entries may be this worker's without it knowing
        self._claim_at = 0.0
        self._backoff = Backoff(0.05, limits.retry_cap_seconds)
        self._ahead: asyncio.Task[_Work | None] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; what was read by then is finished first, unless Postgres is away."""
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
        """Return what comes next, if anything.

        That is what was read ahead; or entries of a lost answer; or, every so often, what dead workers have left.
        """
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            work = await ahead
        else:
            await self._acknowledged()  # else its entries could be read again meanwhile
            if stop.is_set():
                return None
            if not self._prepared:
                await self._streams.prepare()
                self._prepared = True
            work = _decode(await self._read_own() or await self._claim() or await self._read())
        self._redis.succeeded()
        return work

    def _look_ahead(self, stop: asyncio.Event) -> None:
        """Begin to read the next batch, unless there is more to ask for than what is new."""
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
        if not entries:  # else there may be more: ask again right after this batch
            self._claim_at = now + self._limits.claim_idle_seconds / 2
        self._metrics.entries_read.labels("claimed").inc(len(entries))
        return entries

    async def _read(self) -> list[Entry]:
        entries = await self._streams.read(self._limits.batch_entries, _BLOCK_MS)
        self._metrics.entries_read.labels("new").inc(len(entries))
        return entries

    async def _finish(self, work: _Work, stop: asyncio.Event) -> None:
        """See every entry to its end: written or buried, and acknowledged. Raises Stopped."""
        started = time.monotonic()
        for entry, reason in work.unreadable:
            await self._bury(entry, "event", reason)
        if work.tasks:
            await self._write(work, stop)
        self._metrics.batch_seconds.observe(time.monotonic() - started)

    async def _write(self, work: _Work, stop: asyncio.Event) -> None:
        """Write a batch; when a row is at fault or has to wait, all but that row."""
        try:
            await self._commit(work.batch, stop, timeouts=_TIMEOUTS_BEFORE_HALVING)
        except (RowFault, Waiting) as error:
            # Sorted, for events of one room mostly have the same fault: fewer halves hold one then.
            await self._halve(sorted(work.tasks, key=_subject), error, stop)
        else:
            await self._acknowledge(work.tasks)

    async def _halve(self, tasks: Sequence[_Task], error: RowFault | Waiting, stop: asyncio.Event) -> None:
        """Write tasks that were refused together by halves, until what is at fault stands alone.

        Tasks that wait are those of one room, and wait for the same.
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
        """Begin to acknowledge what was committed, when the acknowledgement before is through.

        Raises what that one failed with; these entries are then not acknowledged either, and will be written again.
        """
        await self._acknowledged()
        self._acknowledging = asyncio.create_task(self._mark_done(tasks))

    async def _mark_done(self, tasks: Sequence[_Task]) -> None:
        await self._streams.acknowledge(task.entry for task in tasks)

    async def _acknowledged(self) -> None:
        """Wait until nothing is being acknowledged any more. Raises what it failed with."""
        if self._acknowledging is not None:
            acknowledging, self._acknowledging = self._acknowledging, None
            await acknowledging
            self._backoff.reset()

    def _postpone(self, tasks: Sequence[_Task], reason: Waiting) -> None:
        """Leave entries until they are claimed again, and let new ones come first."""
        self._metrics.postponed.inc(len(tasks))
        self._claim_at = time.monotonic() + self._limits.claim_idle_seconds
        _log.warning("entries_postponed", count=len(tasks), reason=str(reason), **_room_of(tasks[0].change))

    async def _give_up(self, task: _Task, error: RowFault | Waiting, stop: asyncio.Event) -> None:
        """Bury an entry. When only the history refused it, the room is written: a replay adds the history.

        `chat_history` may be the app's own, and refuse what the other tables take.
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
        """Write until it succeeds or cannot ever. Raises RowFault, Waiting after so many timeouts, or Stopped."""
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
        """Wait after a try that may succeed later. Raises Stopped."""
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
    """Make work of what was read; None of nothing."""
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
    """Wait, but no longer than until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return

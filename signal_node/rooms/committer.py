"""Commits changes from the journals of rooms to Redis: the first change of every room that has one, in one write.

While a write is in progress, further changes collect for the next one. So changes of one room are stored one after the
other, without a timer. The answer to each change goes back to the cache.

On a Redis Cluster each partition has its own lane, with its own write in progress. A slow or unreachable shard delays
only its own rooms.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from keepline.ops.backoff import Backoff
from keepline.ops.metrics import Timings
from keepline.ops.redis.scripts import StoreUnavailable
from signal_node.rooms.store import Change, Committed, Conflict, Failed, RoomStore, Unavailable

MAX_BATCH = 128
"""Maximum number of rooms whose changes go to Redis in one write."""

_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_log = structlog.get_logger(__name__)

Answer = Committed | Conflict | Failed


class Journals(Protocol):
    """The rooms of the cache, as the committer sees them."""

    waiting: int

    def first_change(self, room_id: str) -> Change:
        """The first change of a room's journal."""

    def answered(self, room_id: str, answer: Answer) -> None:
        """The change has been answered. Calls `want` again if there is more to store."""


@dataclass(slots=True)
class RoomCounts:
    """Results of changes; failed writes; notices that revealed a missed one."""

    commits: int = 0
    conflicts: int = 0
    refused: int = 0
    unavailable: int = 0
    gaps: int = 0
    seconds: Timings = field(default_factory=lambda: Timings(_BOUNDS))


class Committer:
    """Stores the journals' changes. Run `run` as a task."""

    def __init__(self, store: RoomStore, journals: Journals, counts: RoomCounts) -> None:
        self._store = store
        self._lanes = [_Lane(store, journals, counts) for _ in range(store.lanes)]

    def __len__(self) -> int:
        """Number of rooms with changes to store."""
        return sum(len(lane.dirty) for lane in self._lanes)

    def want(self, room_id: str) -> None:
        """The room has a change to store, in order of arrival."""
        self._lane(room_id).want(room_id)

    def forget(self, room_id: str) -> None:
        """The room has nothing to store any more."""
        self._lane(room_id).dirty.pop(room_id, None)

    def in_flight(self, room_id: str) -> bool:
        """Whether a change of the room is in progress, so that it may be stored or not."""
        return room_id in self._lane(room_id).in_flight

    async def run(self) -> None:
        """Store changes until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())

    def _lane(self, room_id: str) -> _Lane:
        return self._lanes[self._store.lane_of(room_id)]


class _Lane:
    """The rooms whose changes go together. The first rooms of `dirty` may be in progress."""

    def __init__(self, store: RoomStore, journals: Journals, counts: RoomCounts) -> None:
        self.dirty: dict[str, None] = {}
        self.in_flight: frozenset[str] = frozenset()
        self._store = store
        self._journals = journals
        self._counts = counts
        self._wanted = asyncio.Event()

    def want(self, room_id: str) -> None:
        self.dirty[room_id] = None
        self._wanted.set()

    async def run(self) -> None:
        backoff = Backoff(0.05, 2.0)
        while True:
            if not self.dirty:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                await self._commit(list(islice(self.dirty, MAX_BATCH)))
                backoff.reset()
            except StoreUnavailable as error:
                self._counts.unavailable += 1
                delay = backoff.next()
                _log.warning(
                    "commit_unavailable",
                    error=str(error),
                    waiting=self._journals.waiting,
                    retry_in_ms=round(delay * 1000),
                )
                await asyncio.sleep(delay)

    async def _commit(self, batch: list[str]) -> None:
        changes = [self._journals.first_change(room_id) for room_id in batch]
        self.in_flight = frozenset(batch)
        began = time.perf_counter()
        try:
            results = await self._store.commit_each(changes)
            self._counts.seconds.observe(time.perf_counter() - began)
        finally:
            self.in_flight = frozenset()
        away = [result.why for result in results if isinstance(result, Unavailable)]
        for room_id, result in zip(batch, results, strict=True):
            del self.dirty[room_id]
            if isinstance(result, Unavailable):
                self.want(room_id)  # the same change again: Redis recognises it if it is stored
            else:
                self._journals.answered(room_id, result)
        if away and len(away) == len(results):
            raise StoreUnavailable(away[0])

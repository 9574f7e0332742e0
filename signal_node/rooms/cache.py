"""The cache of rooms, and the way of a command from here to Redis.

A command is applied to the cache at once, in synchronous code, so rooms need no locks; clients of this node are told
at once. The change then waits in the room's journal until the committer has stored it. Changes of one room are stored
one after the other, those of different rooms in one write. On a conflict the newer record takes the place of the one
that the journal was built on, and the commands are applied again.

A room stays in the cache while one of its sides is held on this node or something of it waits to be stored. Its last
record is known for a minute longer (see `evicted`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from msgspec.structs import replace

from keepline.ops.backoff import Backoff
from keepline.ops.metrics import Timings
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import Command, Join
from keepline.room.deadlines import due
from keepline.room.record import SIDES, Message, Room, Status
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition, apply
from signal_node.bus import bus
from signal_node.rooms.evicted import EvictedRooms, Untold
from signal_node.rooms.fanout import Delivery, Notice, Routes, route
from signal_node.rooms.journal import (
    KEPT_LINES,
    Done,
    Entry,
    JournalFull,
    NotStored,
    OnDone,
    Outcome,
    Pending,
    ignore_outcome,
    message_of,
)
from signal_node.rooms.store import Change, Committed, Conflict, Failed, RoomStore, Unavailable

MAX_BATCH = 128
"""Rooms whose changes go to Redis in one write."""

MAX_JOURNAL = 10_000
"""Changes of all rooms that may wait for Redis."""

MAX_EARLY = 64
"""Notices of a room that wait for the answer to a commit of its own."""

MAX_UNTOLD = 16
"""Conflicts of a room at the most of which clients have still to be told."""

NO_VERSION = -1
"""Expected of a record that Redis may have otherwise under the same version: it answers with what it has."""

_COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_log = structlog.get_logger(__name__)


class Audience(Protocol):
    """Those whom a change concerns on this node."""

    def deliver(self, session: str, data: bytes) -> None:
        """Write a frame to a session of this node."""

    def replaced(self, session: str) -> None:
        """A session of this node has lost its user to a newer one."""

    def stays(self, session: str) -> bool:
        """Whether the session is open on this node, and not about to be closed."""

    def room_changed(self, before: Room | None, after: Room) -> None:
        """The cache holds a newer record: who holds the sides may have changed."""


@dataclass(slots=True)
class RoomCounts:
    """What is counted about commits."""

    commits: int = 0
    conflicts: int = 0
    refused: int = 0
    unavailable: int = 0
    gaps: int = 0
    seconds: Timings = field(default_factory=lambda: Timings(_COMMIT_BOUNDS))


class Rooms:
    """The rooms that concern this node. `run` is to be run as a task."""

    def __init__(
        self,
        node: str,
        store: RoomStore,
        rules: Rules,
        audience: Audience,
        *,
        now: Callable[[], int],
        new_write_id: Callable[[], str],
        on_gap: Callable[[str], None],
        on_loss: Callable[[str], None],
        on_committed: Callable[[Command, Room | None, Room], None] = lambda command, before, after: None,
    ) -> None:
        """Take the clock as `now()` in ms since 1970, and a source of ids that are unique in the cluster.

        `on_gap(room_id)` is called when a notice shows that one before it was missed, `on_loss(room_id)` when Redis
        turns out to have lost something of a room that was stored, `on_committed(command, before, after)` when a
        transition is stored.
        """
        self.counts = RoomCounts()
        self._node = node
        self._store = store
        self._rules = rules
        self._audience = audience
        self._now = now
        self._new_write_id = new_write_id
        self._on_gap = on_gap
        self._on_loss = on_loss
        self._on_committed = on_committed
        self._evicted = EvictedRooms()
        self._entries: dict[str, Entry] = {}
        self._dirty: dict[str, Entry] = {}
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, room_id: str) -> Room | None:
        """The room as the cache has it."""
        entry = self._entries.get(room_id)
        return None if entry is None else entry.head

    async def find(self, room_id: str) -> Room | None:
        """The room from the cache, else from Redis. Raises StoreUnavailable, BadRecord."""
        cached = self.get(room_id)
        if cached is not None:
            return cached
        room, _ = await self._store.load(room_id)
        return self.get(room_id) or room

    def execute(
        self,
        room: Room | None,
        room_id: str,
        command: Command,
        on_done: OnDone,
        asker: str | None = None,
        now: int | None = None,
        *,
        from_redis: bool = True,
    ) -> None:
        """Apply a command to the cache and have it stored; `on_done` is called when it is.

        `room` is what was found where the cache has nothing, `from_redis` or in Postgres, which does not know who holds
        the sides; `now` is the time of the command where it is not the clock's. Raises IllegalTransition when the room
        does not allow the command, JournalFull when Redis has been away for too long.
        """
        entry = self._entries.get(room_id) or self._new_entry(room_id, room, from_redis)
        at = self._now() if now is None else now
        after, effects = apply(entry.head, command, at, self._rules)
        if after is entry.head:
            self._follow(entry, on_done, after)
            return
        if self.waiting >= MAX_JOURNAL:
            raise JournalFull
        self._entries[room_id] = entry
        self._evicted.forget(room_id)
        after = replace(after, write_id=self._new_write_id())
        before, entry.head = entry.head, after
        routes = route(before, after, effects, self._node, asker)
        pending = Pending(command, asker, on_done, now, after, message_of(effects), routes)
        entry.journal.append(pending)
        self.waiting += 1
        self._idle.clear()
        self._want(after.room_id, entry)
        self._audience.room_changed(before, after)
        self._tell(pending)

    def absorb(self, notice: Notice) -> None:
        """Take in what another node has committed. When something before it was missed, look again at Redis."""
        room = notice.room
        entry = self._entries.get(room.room_id)
        known = entry or self._evicted.get(room.room_id)
        if known is not None and room.version <= known.told_version:
            return
        if entry is not None and (room.version > entry.latest_version + 1 or entry.untold):
            if entry.in_flight and len(entry.early) < MAX_EARLY:
                entry.early.append(notice)
                return
            self.counts.gaps += 1
            self._on_gap(room.room_id)
            return
        for delivery in notice.frames:
            self._audience.deliver(delivery.session, delivery.data)
            if entry is not None:
                entry.forget_told(delivery)
        if entry is not None:
            self._adopt(entry, room)
        for session in notice.replaced:
            self._audience.replaced(session)

    def _adopt(self, entry: Entry, room: Room) -> None:
        """Take a record that is newer than what is known to be stored."""
        if room.version <= entry.latest_version:
            return
        if entry.in_flight:
            entry.heard = room
        else:
            self._rebase(entry, room, told=True)
            self._evict(room.room_id, entry)

    def _new_entry(self, room_id: str, room: Room | None, from_redis: bool) -> Entry:
        """An entry for what was found, or for what is known of it if that is newer."""
        evicted = self._evicted.get(room_id)
        newest = room if evicted is None else _newest(room, evicted.room)
        version = 0 if newest is None else newest.version
        if newest is room and not from_redis:
            version = NO_VERSION
        if evicted is None:
            return Entry(newest, newest, version)
        lines = deque(evicted.lines, maxlen=KEPT_LINES)
        return Entry(
            newest,
            newest,
            version,
            told_version=evicted.told_version,
            untold=list(evicted.untold),
            lines=lines,
        )

    def cached(self) -> list[str]:
        """The rooms of the cache."""
        return list(self._entries)

    def ids(self) -> list[str]:
        """The rooms of the cache, and those that left it lately."""
        return [*self._entries, *self._evicted]

    def known(self, room_id: str) -> Room | None:
        """The room as the cache has it, or had it lately."""
        return self.get(room_id) or self.stored(room_id)

    def stored(self, room_id: str) -> Room | None:
        """The last record that is known to have been stored, also of a room that left the cache lately."""
        entry = self._entries.get(room_id)
        if entry is not None:
            return entry.stored
        evicted = self._evicted.get(room_id)
        return None if evicted is None else evicted.room

    def untold(self, room_id: str) -> Sequence[Untold]:
        """What conflicts have brought and clients have still to be told, the oldest first."""
        known = self._entries.get(room_id) or self._evicted.get(room_id)
        return () if known is None else tuple(known.untold)

    def take_untold(self, untold: Untold) -> bool:
        """Whether the clients have still to be told; whoever asks does so now."""
        room_id = untold.there.room_id
        if untold not in self.untold(room_id):
            return False
        entry = self._entries.get(room_id)
        if entry is not None:
            entry.untold.remove(untold)
        else:
            self._evicted.told(room_id, untold)
        return True

    def at_rest(self, room_id: str) -> Room | None:
        """The stored record of a cached room of which nothing waits or is on its way to be stored."""
        entry = self._entries.get(room_id)
        if entry is None or entry.in_flight or entry.journal:
            return None
        return entry.stored

    def lines(self, room_id: str) -> list[Message]:
        """The last lines of chat that were stored from here."""
        known = self._entries.get(room_id) or self._evicted.get(room_id)
        return [] if known is None else list(known.lines)

    def catch_up(self, room: Room) -> Untold | None:
        """Take a newer record from Redis. Whoever calls tells the clients what it brought; late notices do not."""
        entry = self._entries.get(room.room_id)
        if entry is None:
            return None
        entry.told_version = room.version
        known = entry.as_told()
        self._rebase(entry, room)
        there = entry.as_told()
        self._evict(room.room_id, entry)
        return None if known is None or there is None else Untold(known, there)

    async def run(self) -> None:
        """Store what the journals hold, until cancelled."""
        backoff = Backoff(0.05, 2.0)
        while True:
            await self._wanted.wait()
            batch = [entry for _, entry in zip(range(MAX_BATCH), self._dirty.values(), strict=False)]
            try:
                await self._commit(batch)
                backoff.reset()
            except StoreUnavailable as error:
                self.counts.unavailable += 1
                delay = backoff.next()
                _log.warning(
                    "commit_unavailable",
                    error=str(error),
                    waiting=self.waiting,
                    retry_in_ms=round(delay * 1000),
                )
                await asyncio.sleep(delay)

    async def settled(self) -> None:
        """Wait until nothing waits to be stored."""
        await self._idle.wait()

    # --- inside ---

    async def _commit(self, batch: list[Entry]) -> None:
        for entry in batch:
            entry.in_flight = True
        began = time.perf_counter()
        try:
            results = await self._store.commit_each([self._change(entry) for entry in batch])
            self.counts.seconds.observe(time.perf_counter() - began)
        finally:
            for entry in batch:
                entry.in_flight = False
        away = [result.why for result in results if isinstance(result, Unavailable)]
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Unavailable):
                self._requeue(entry.journal[0].after.room_id, entry)
            else:
                self._settle(entry, result)
        if not self._dirty:
            self._wanted.clear()
        if away and len(away) == len(results):
            raise StoreUnavailable(away[0])

    def _change(self, entry: Entry) -> Change:
        pending = entry.journal[0]
        deadline = due(pending.after, self._rules)
        return Change(
            kind=type(pending.command).__name__.lower(),
            expected_version=entry.expected_version,
            before=entry.stored,
            after=pending.after,
            message=pending.message,
            due_at=None if deadline is None else deadline.at,
            notices={node: bus.notice(data) for node, data in pending.routes.notices.items()},
        )

    def _settle(self, entry: Entry, result: Committed | Conflict | Failed) -> None:
        pending = entry.journal[0]
        room_id = pending.after.room_id
        match result:
            case Committed():
                self.counts.commits += 1
                before, entry.stored = entry.stored, pending.after
                entry.expected_version = pending.after.version
                if pending.message is not None:
                    entry.lines.append(pending.message)
                self._drop_first(entry)
                self._on_committed(pending.command, before, pending.after)
                pending.on_done(Done(pending.after, pending.message))
                for delivery in pending.routes.committed:
                    self._audience.deliver(delivery.session, delivery.data)
                heard, entry.heard = entry.heard, None
                if heard is not None and heard.version > entry.stored.version:
                    self._rebase(entry, heard, told=True)
            case Conflict(current):
                self.counts.conflicts += 1
                self._resolve(room_id, entry, current)
            case Failed(why):
                self.counts.refused += 1
                _log.error("commit_refused", room=room_id, error=why)
                self._drop_first(entry)
                pending.on_done(NotStored(why))
                heard, entry.heard = entry.heard, None
                self._rebase(entry, _newest(heard, entry.stored), told=True)
        self._requeue(room_id, entry)
        early, entry.early = entry.early, []
        for notice in early:
            self.absorb(notice)

    def _resolve(self, room_id: str, entry: Entry, current: Room | None) -> None:
        """Another record is there than the change was made on. The newer of the two stays; what has ended, too."""
        if current is None or _lost_something(current, entry.stored):
            # Redis has lost what it had: the same change goes on top of what is left.
            entry.expected_version = 0 if current is None else current.version
            self._on_loss(room_id)
            return
        heard, entry.heard = entry.heard, None
        if heard is not None:
            self._rebase(entry, heard, told=True)
        if heard is None or heard.version < current.version:
            # The notice may be on its way, or lost: clients are told by comparing, and late notices are not for them.
            known = entry.as_told()
            self._rebase(entry, current)
            there = entry.as_told()
            entry.told_version = current.version
            if known is not None and there is not None:
                entry.untold = [*entry.untold[-MAX_UNTOLD:], Untold(known, there)]
                self._on_gap(room_id)

    def _rebase(self, entry: Entry, room: Room | None, *, told: bool = False) -> None:
        """Build the journal anew on a newer record. Commands that it does not allow are answered so.

        `told`: the clients have been told what led to that record.
        """
        before = entry.head
        retakes = self._retakes(entry, room)
        entry.stored = entry.head = room
        entry.expected_version = 0 if room is None else room.version
        journal, entry.journal = entry.journal, deque()
        self.waiting -= len(journal)
        for pending in (*retakes, *journal):
            self._reapply(entry, pending)
        if len(retakes) == 2 and before is not None and (second := before.side_2.session) is not None:
            # Whoever was lost last has heard of the other's loss, and finds its side taken again before its own is.
            news = retakes[1].routes.at_once
            news += [Delivery(second, delivery.data) for delivery in news]
        if room is not None and retakes:
            self._idle.clear()
            self._want(room.room_id, entry)
        if entry.head is not None and entry.head is not before:
            self._audience.room_changed(before, entry.head)
        for pending in entry.journal:
            if told or pending not in retakes:
                self._tell(pending)

    def _retakes(self, entry: Entry, room: Room | None) -> list[Pending]:
        """Joins of sessions that lost their sides to nobody: somebody took this node for dead, and it is not.

        They come before all that waits, so that it finds the sides held.
        """
        known, head = entry.stored, entry.head
        if known is None or head is None or room is None or room.status is Status.ENDED:
            return []
        retakes = []
        for number in SIDES:
            held, now = head.side(number), room.side(number)
            if held.session is None or held.node != self._node or held.session != known.side(number).session:
                continue
            if not now.connected and not now.left and self._audience.stays(held.session):
                join = Join(number, self._node, held.session, only_if_free=True)
                retakes.append(Pending(join, None, ignore_outcome, None, room, None, Routes()))
        return retakes

    def _reapply(self, entry: Entry, pending: Pending) -> None:
        base = entry.head
        try:
            at = self._now() if pending.at is None else pending.at
            after, effects = apply(base, pending.command, at, self._rules)
        except IllegalTransition as error:
            pending.on_done(error)
            return
        if after is base:
            pending.on_done(Done(after))
            return
        pending.after = entry.head = replace(after, write_id=self._new_write_id())
        pending.message = message_of(effects)
        pending.routes = route(base, pending.after, effects, self._node, pending.asker)
        entry.journal.append(pending)
        self.waiting += 1

    def _tell(self, pending: Pending) -> None:
        for delivery in pending.routes.at_once:
            key = (delivery.session, delivery.data)
            if key not in pending.told:
                pending.told.add(key)
                self._audience.deliver(delivery.session, delivery.data)
        for session in pending.routes.replaced:
            self._audience.replaced(session)

    def _follow(self, entry: Entry, on_done: OnDone, room: Room) -> None:
        """Answer a command that changes nothing: not before what it found is stored."""
        if not entry.journal:
            on_done(Done(room))
            return
        last = entry.journal[-1]
        first = last.on_done

        def both(outcome: Outcome) -> None:
            first(outcome)
            on_done(Done(outcome.room) if isinstance(outcome, Done) else outcome)

        last.on_done = both

    def _want(self, room_id: str, entry: Entry) -> None:
        self._dirty[room_id] = entry
        self._wanted.set()

    def _requeue(self, room_id: str, entry: Entry) -> None:
        self._dirty.pop(room_id, None)
        if entry.journal:
            self._want(room_id, entry)
        self._evict(room_id, entry)

    def _drop_first(self, entry: Entry) -> None:
        entry.journal.popleft()
        self.waiting -= 1

    def _evict(self, room_id: str, entry: Entry) -> None:
        if not self.waiting:
            self._idle.set()
        if entry.journal or entry.in_flight:
            return
        self._dirty.pop(room_id, None)
        if entry.head is None or all(side.node != self._node for side in entry.head.sides):
            left = self._entries.pop(room_id, None)
            if left is not None and left.stored is not None:
                self._evicted.keep(left.stored, left.lines, self._now(), left.untold, left.told_version)


def _newest(heard: Room | None, stored: Room | None) -> Room | None:
    if heard is None or (stored is not None and stored.version >= heard.version):
        return stored
    return heard


def _lost_something(current: Room, known: Room | None) -> bool:
    if known is None or current.status is Status.ENDED:
        return False
    return current.version < known.version

"""The cache of rooms, and the path of a command from here to Redis.

A command is applied to the cache at once, in synchronous code, so rooms need no locks, and clients of this node are
told at once. The change then waits in the room's journal until the committer has stored it. A room stays in the cache
while this node holds one of its sides or has pending changes of it. Its last record is kept for another minute (see
`evicted`).
"""

# Theory of operation
# ===================
#
# A cached room has `stored`, a record that is known to be in Redis, and a journal of changes that this node has made on
# top of it. `head` is `stored` with the journal applied, and this node acts on `head`. The first change of the journal
# is being committed to Redis, or will be next. Other nodes do the same with the same room. So this node also receives
# records that it did not make, in three ways:
#
# - a **notice** from the node that committed a change, over the bus: the record, and frames for the clients of this
#   node. It may be late, lost, or overtake the answer to a commit of this node;
# - a **conflict**: Redis' answer to a commit that was based on a record that has been replaced;
# - a **comparison** with Redis, by the reconciler, after something was missed.
#
# Each time, the journal is rebased onto the received record (`rebase`). What clients were told of a change is kept with
# it, so that nothing is told twice. The difficulty is that the record of a change and its notice arrive separately, and
# that clients must be told everything once and in order. Five fields keep track of that:
#
# `expected_version`: the version that Redis must have when the first change arrives: that of `stored`. There are two
#     exceptions: UNKNOWN_VERSION for a room from Postgres, and the version of what is left when Redis has lost data.
# `heard`: the newest record from notices that arrived during a commit. Their frames were delivered at once. The journal
#     is not touched before the commit is answered, because the answer determines the journal's base.
# `early`: notices that arrived during a commit and skip a version. Most of them follow that very commit and have
#     overtaken its answer. They are processed, in order, after the answer.
# `untold`: pairs of records: what clients knew, and what a conflict brought. The reconciler compares them and tells the
#     clients, because the notices may have been lost. Until then, later notices wait as well.
# `told_version`: clients have been told everything up to it by comparison, so notices up to it are too late.
#
# The meaning of an answer depends on what was heard meanwhile. (`ours` is the change that was answered, `theirs` the
# record in the answer.) After each case, the early notices are processed. Those that still skip a version are a gap,
# and the reconciler compares the room.
#
#   answer           nothing heard               heard, not older than theirs    heard, older than theirs
#   ---------------  --------------------------  ------------------------------  ------------------------------
#   Committed        ours is stored              ours is stored; rebase onto     (there is no theirs)
#                                                heard if it is newer than ours
#   Conflict         rebase onto theirs; clients rebase onto heard; clients      rebase onto heard, which clients
#                    are told by comparison      know what led there             know, then as if nothing was heard
#   Conflict with a  as for Committed with a lost answer; the reconciler looks for what followed ours
#   record that
#   includes ours
#   Conflict, with   Redis has lost data: the    the same                        the same
#   older or none    same change goes on top of
#                    what is left
#   Failed           ours is undone: rebase onto rebase onto the newer of heard  (there is no theirs)
#                    stored                      and stored
#   Unavailable      ours may be stored or not: it stays first, and the same write is retried; heard waits
#
# A notice without a commit in progress: the next version is processed at once, an older one is known already, and one
# that skips a version is a gap.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from keepline.room.commands import Command
from keepline.room.record import Room, Status
from keepline.room.rules import Rules
from keepline.room.writes import has_write
from signal_node.rooms.committer import Answer, Committer, RoomCounts
from signal_node.rooms.evicted import Untold
from signal_node.rooms.fanout import Delivery, Notice
from signal_node.rooms.journal import (
    CachedRoom,
    Done,
    JournalFull,
    NotStored,
    OnDone,
    as_change,
    newest,
)
from signal_node.rooms.known import KnownRooms
from signal_node.rooms.rebase import Here, change, rebase
from signal_node.rooms.store import Change, Committed, Conflict, Failed, RoomStore

MAX_JOURNAL = 10_000
"""Maximum number of pending changes over all rooms."""

MAX_EARLY = 64
"""Maximum number of notices of a room that wait for the answer to a commit."""

MAX_UNTOLD = 16
"""Maximum number of conflicts of a room of which clients are not told yet; the oldest are dropped."""

_log = structlog.get_logger(__name__)


class Audience(Protocol):
    """The clients of this node, to be told of changes."""

    def deliver(self, session: str, data: bytes) -> None:
        """Write a frame to a session of this node."""

    def replaced(self, session: str) -> None:
        """A session of this node has lost its user to a newer one."""

    def stays(self, session: str) -> bool:
        """Whether the session is open on this node, and not about to be closed."""

    def room_changed(self, before: Room | None, after: Room) -> None:
        """The cache has a newer record, so the sessions that hold the sides may have changed."""


class Rooms(KnownRooms):
    """The rooms that concern this node. Run `run` as a task."""

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
        """`now()` is the time in ms since 1970. `ids` is a source of ids that are unique in the cluster.

        `on_gap(room_id)` is called if a notice shows that an earlier one was missed, `on_loss(room_id)` if Redis has
        lost a stored room, `on_committed(command, before, after)` when a transition is stored.
        """
        super().__init__(store)
        self.counts = RoomCounts()
        self.waiting = 0
        self.committer = Committer(store, self, self.counts)
        self._node = node
        self._rules = rules
        self._audience = audience
        self._now = now
        self._new_write_id = new_write_id
        self._on_gap = on_gap
        self._on_loss = on_loss
        self._on_committed = on_committed
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Store the journals' changes until cancelled."""
        await self.committer.run()

    async def all_stored(self) -> None:
        """Wait until no change is pending."""
        while self.waiting:
            await self._idle.wait()

    # --- changes made here ---

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
        """Apply a command to the cache and have it stored. `on_done` is called when it is.

        `room` is the room found if it is not in the cache, `from_redis` or in Postgres, which does not know who holds
        the sides. `now` overrides the clock. Raises IllegalTransition if the room does not allow the command,
        JournalFull if Redis has been away for too long.
        """
        entry = self._entry_of(room_id, room, from_redis=from_redis)
        before = entry.head
        pending = change(before, command, on_done, asker, now, self._here())
        if pending is None:
            assert before is not None
            entry.follow(on_done, before)
            return
        if self.waiting >= MAX_JOURNAL:
            raise JournalFull
        self._entries[room_id] = entry
        self._evicted.forget(room_id)
        news = pending.news()
        entry.journal.append(pending.as_told())
        entry.head = pending.after
        self._count(1)
        self.committer.want(room_id)
        self._audience.room_changed(before, pending.after)
        self._tell(news, pending.routes.replaced)

    def remember(self, room: Room) -> None:
        """A room was stored without this cache: what Redis loses of it in the next minute is put back."""
        if room.room_id in self._entries:
            return  # a notice brings it
        known = self._evicted.get(room.room_id)
        lines, untold, told = (
            ((), (), 0) if known is None else (known.lines, known.untold, known.told_version)
        )
        self._evicted.keep(room, lines, self._now(), untold, told)

    def _here(self) -> Here:
        return Here(self._node, self._rules, self._now(), self._new_write_id, self._audience.stays)

    # --- changes made elsewhere ---

    def absorb(self, notice: Notice) -> None:
        """Process a notice from another node. If something before it was missed, have the room compared with Redis."""
        room = notice.room
        entry = self._entries.get(room.room_id)
        known = entry or self._evicted.get(room.room_id)
        if known is not None and room.version <= known.told_version:
            return
        if entry is not None and (room.version > entry.latest_version + 1 or entry.untold):
            if self.committer.in_flight(room.room_id) and len(entry.early) < MAX_EARLY:
                entry.early.append(notice)
                return
            self.counts.gaps += 1
            self._on_gap(room.room_id)
            return
        for delivery in notice.frames:
            self._audience.deliver(delivery.session, delivery.data)
            if entry is not None:
                entry.forget_told(delivery)
        if entry is not None and room.version > entry.latest_version:
            self._adopt(entry, room)
        self._tell((), notice.replaced)

    def _adopt(self, entry: CachedRoom, room: Room) -> None:
        """Take over a record of which clients have been told."""
        if self.committer.in_flight(room.room_id):
            entry.heard = room
        else:
            self._evict(self._rebase(entry, room, told=True))

    def catch_up(self, room: Room) -> Untold | None:
        """Take over a newer record from Redis. The caller tells clients what changed; late notices do not."""
        entry = self._entries.get(room.room_id)
        if entry is None:
            return None
        untold = self._overtake(entry, room)
        self._evict(self._entries[room.room_id])
        return untold

    # --- answers from Redis (committer.Journals) ---

    def first_change(self, room_id: str) -> Change:
        """The first change of a room's journal, in the form for Redis."""
        entry = self._entries[room_id]
        return as_change(entry.expected_version, entry.stored, entry.journal[0], self._rules)

    def answered(self, room_id: str, answer: Answer) -> None:
        """Continue after Redis' answer to the first change, as in the table at the top of this module."""
        entry = self._entries[room_id]
        match answer:
            case Committed():
                self._committed(entry)
            case Conflict(current) if current is not None and has_write(current, _first_write(entry)):
                # from an earlier attempt whose answer was lost, and others have followed
                self._committed(entry)
                self._on_gap(room_id)
            case Conflict(current):
                self._resolve(entry, current)
            case Failed(why):
                self._undo(entry, why)
        entry = self._entries[room_id]
        if entry.journal:
            self.committer.want(room_id)
        self._evict(entry)
        early, entry.early = entry.early, []
        for notice in early:
            self.absorb(notice)

    def _committed(self, entry: CachedRoom) -> None:
        self.counts.commits += 1
        before, pending = entry.take_stored()
        self._count(-1)
        self._on_committed(pending.command, before, pending.after)
        pending.on_done(Done(pending.after, pending.message))
        self._tell(pending.routes.committed)
        heard = entry.take_heard()
        if heard is not None and heard.version > pending.after.version:
            self._rebase(entry, heard, told=True)

    def _resolve(self, entry: CachedRoom, current: Room | None) -> None:
        """Redis has another record than the change was based on. The newer of the two stays, and so does an end."""
        self.counts.conflicts += 1
        if current is None or _lost_something(current, entry.stored):
            entry.expected_version = 0 if current is None else current.version
            self._on_loss(entry.room_id)
            return
        heard = entry.take_heard()
        if heard is not None:
            entry = self._rebase(entry, heard, told=True)
        if heard is None or heard.version < current.version:
            untold = self._overtake(entry, current)
            if untold is not None:
                entry = self._entries[entry.room_id]
                entry.untold = (*entry.untold[-MAX_UNTOLD:], untold)
                self._on_gap(entry.room_id)

    def _undo(self, entry: CachedRoom, why: str) -> None:
        self.counts.refused += 1
        _log.error("commit_refused", room=entry.room_id, error=why)
        pending = entry.journal.popleft()
        self._count(-1)
        pending.on_done(NotStored(why))
        self._rebase(entry, newest(entry.take_heard(), entry.stored), told=True)

    # --- inside ---

    def _overtake(self, entry: CachedRoom, room: Room) -> Untold | None:
        """Take over a record of which clients have not been told. They are told by comparison, not by late notices."""
        known = entry.as_told()
        entry = self._rebase(entry, room, told=False)
        entry.told_version = room.version
        there = entry.as_told()
        return None if known is None or there is None else Untold(known, there)

    def _rebase(self, entry: CachedRoom, room: Room | None, *, told: bool) -> CachedRoom:
        """Replace the record that the journal is based on by a newer one, with all consequences."""
        rebased = rebase(entry, room, self._here(), told=told)
        new = self._entries[entry.room_id] = rebased.entry
        self._count(len(new.journal) - len(entry.journal))
        if new.journal:
            self.committer.want(entry.room_id)
        for on_done, outcome in rebased.outcomes:
            on_done(outcome)
        if new.head is not None and new.head is not entry.head:
            self._audience.room_changed(entry.head, new.head)
        self._tell(rebased.deliveries, rebased.replaced)
        return new

    def _tell(self, deliveries: Iterable[Delivery], replaced: Iterable[str] = ()) -> None:
        for delivery in deliveries:
            self._audience.deliver(delivery.session, delivery.data)
        for session in replaced:
            self._audience.replaced(session)

    def _count(self, more: int) -> None:
        """Add to the number of pending changes."""
        self.waiting += more
        if self.waiting:
            self._idle.clear()
        else:
            self._idle.set()

    def _evict(self, entry: CachedRoom) -> None:
        """Drop a room that nobody holds here and that has no pending changes."""
        if entry.journal:
            return
        self.committer.forget(entry.room_id)
        if entry.head is None or all(side.node != self._node for side in entry.head.sides):
            self._leave(entry, self._now())


def _first_write(entry: CachedRoom) -> str:
    return entry.journal[0].after.write_id


def _lost_something(current: Room, known: Room | None) -> bool:
    if known is None or current.status is Status.ENDED:
        return False
    return current.version < known.version

"""Restores rooms from Postgres to Redis: live rooms return with a new grace period, old ones are ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from keepline.room import commands
from keepline.room.codec import RESTORED, BadRecord
from keepline.room.deadlines import due
from keepline.room.record import ChatMode, EndReason, Message, Room, Status
from keepline.room.rules import Rules
from keepline.room.state import apply
from keepline.room.writes import written
from signal_node.rooms.archive import Archived
from signal_node.rooms.store import Change, Committed, Conflict, Found, RoomStore

TOUCHED_MS = 10 * 60_000
"""Rooms that have not changed for longer than this do not return."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RevivalCounts:
    """Results for rooms that only Postgres had."""

    revived: int = 0
    ended: int = 0


class Revival:
    """Restores what is missing or older in Redis than in Postgres."""

    def __init__(
        self,
        store: RoomStore,
        rules: Rules,
        *,
        grace_ms: int,
        now: Callable[[], int],
        new_write_id: Callable[[], str],
    ) -> None:
        """`grace_ms` is the grace period of the sides of a room, from the moment that the room is restored."""
        self.counts = RevivalCounts()
        self._store = store
        self._rules = rules
        self._grace_ms = grace_ms
        self._now = now
        self._new_write_id = new_write_id

    async def store(self, archived: Sequence[Archived]) -> int:
        """Store rooms with their chat, in three writes for any number, and return how many were stored. Raises
        StoreUnavailable.

        Rooms that exist in the same or a newer version stay, but get the chat messages that they lack.
        """
        there = dict(
            zip(
                (a.room.room_id for a in archived),
                await self._store.load_many([a.room.room_id for a in archived]),
                strict=True,
            )
        )
        planned = [self._change(a, there[a.room.room_id]) for a in archived]
        changes = [change for change in planned if change is not None]
        results = await self._store.commit(changes) if changes else []
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, Committed):
                there[change.after.room_id] = change.after
            elif isinstance(result, Conflict):
                there[change.after.room_id] = result.current
                _log.info("room_came_back_meanwhile", room=change.after.room_id)
        await self._store.merge_chats(_chats(archived, there))
        return sum(isinstance(result, Committed) for result in results)

    def _change(self, archived: Archived, there: Found) -> Change | None:
        """What to store of a room from Postgres, given what Redis has of it. An unreadable record stays."""
        room = archived.room
        if isinstance(there, BadRecord):
            return None
        if room.status is Status.ENDED:
            if there is not None and (there.status is Status.ENDED or there.version > room.version):
                return None
            return Change(RESTORED, 0 if there is None else there.version, there, room, None, None, {})
        if there is not None and there.version >= room.version:
            return None  # a node knew it, and wrote it back
        now = self._now()
        if now - room.updated_at > TOUCHED_MS:
            command: commands.Command = commands.End(_reason(room))
            self.counts.ended += 1
        else:
            command = commands.Revive(self._grace_ms)
            self.counts.revived += 1
        after, _ = apply(room, command, now, self._rules)
        after = written(room, after, self._new_write_id())
        deadline = due(after, self._rules)
        kind = command.kind
        expected = 0 if there is None else there.version
        return Change(kind, expected, there, after, None, None if deadline is None else deadline.at, {})


def _chats(archived: Sequence[Archived], there: Mapping[str, Found]) -> dict[str, list[Message]]:
    """The messages to restore. Those beyond the record's last one reached Postgres too late: their numbers are
    taken.
    """
    chats = {}
    for one in archived:
        room = there[one.room.room_id]
        last_seq = room.last_seq if isinstance(room, Room) else 0
        chats[one.room.room_id] = [line for line in one.messages if line.seq <= last_seq]
    return chats


def _reason(room: Room) -> EndReason:
    """The reason for the end of a room from which both sides were absent for too long."""
    if room.met_at is None:
        return EndReason.NO_SHOW
    return EndReason.INACTIVITY if room.chat_mode is ChatMode.TEXT else EndReason.GRACE_EXPIRED

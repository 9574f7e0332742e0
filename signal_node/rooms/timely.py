"""Changes for a caller who does not wait for long: stored in time, or never.

The app's backend is answered 503 when Redis does not answer in time, and tries again. What it was refused must not be
done later. So such a change waits in no journal. It is sent with the time by which it has to reach Redis, and the
script refuses it after that. The time is by the clock of the very server that stores the change, which is asked for it
first: clocks need not agree.

One case is left, which no clock can decide: a change that was stored in time, and whose answer was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from keepline.ops.backoff import Backoff
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.commands import Command, End, Open
from keepline.room.record import EndReason, Message, Room, Status
from keepline.room.rules import Rules
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import NotStored, as_change, ignore_outcome
from signal_node.rooms.rebase import Here, change
from signal_node.rooms.store import Change, Committed, Conflict, Failed, RoomStore, Unavailable

STORED_SECONDS = 2.5
"""A change that reaches Redis later than this after it was asked for is not made; its caller waits a little longer."""

NOBODY = ""
"""In the name of which node such changes are made: so every node is told of them, this one as well."""


GivenUp = Callable[[], bool]
"""Whether the caller is gone: it may have asked long ago if this node stood still."""


class NoSuchRoom(Exception):
    """There is no room of that id."""


class AnotherRoom(Exception):
    """A room of that id is there, and it is not the one that was to be opened."""


class TimelyChanges:
    """Rooms that are opened and ended for the app's backend."""

    def __init__(
        self,
        store: RoomStore,
        rooms: Rooms,
        rules: Rules,
        *,
        now: Callable[[], int],
        new_write_id: Callable[[], str],
        on_gap: Callable[[str], None],
        on_committed: Callable[[Command, Room | None, Room], None],
    ) -> None:
        """Take what `Rooms` does, but another source of write ids: a record knows one write of each."""
        self._store = store
        self._rooms = rooms
        self._rules = rules
        self._now = now
        self._new_write_id = new_write_id
        self._on_gap = on_gap
        self._on_committed = on_committed

    async def open(self, command: Open, given_up: GivenUp) -> Room:
        """Open a room; what is there, if the same room was opened before.

        Raises AnotherRoom, IllegalTransition, NotStored, StoreUnavailable.
        """
        stored = await self._carry_out(command, None, _until(), given_up)
        if isinstance(stored, Conflict):
            if stored.current is None or not _is_opened_by(command, stored.current):
                raise AnotherRoom
            return stored.current
        return stored

    async def end(self, room_id: str, reason: EndReason, given_up: GivenUp) -> tuple[Room, list[Message]]:
        """End a room; what is there, if it has ended. Raises NoSuchRoom, BadRecord, NotStored, StoreUnavailable."""
        until = _until()
        while True:
            room, messages = await self._store.load(room_id)
            if room is None:
                raise NoSuchRoom
            if room.status is Status.ENDED:
                return room, messages
            known = self._rooms.stored(room_id)
            if known is not None and known.version > room.version:
                self._on_gap(room_id)
                raise StoreUnavailable("Redis has lost the last changes of this room")
            stored = await self._carry_out(End(reason), room, until, given_up)
            if isinstance(stored, Room):
                return stored, messages

    async def _carry_out(
        self, command: Command, before: Room | None, until: float, given_up: GivenUp
    ) -> Room | Conflict:
        here = Here(NOBODY, self._rules, self._now(), self._new_write_id, lambda session: False)
        pending = change(before, command, ignore_outcome, None, None, here)
        assert pending is not None
        expected = 0 if before is None else before.version
        made = as_change(expected, before, pending, self._rules)
        result = await self._commit(made, until, given_up)
        if isinstance(result, Conflict):
            return result
        if isinstance(result, Failed):
            raise NotStored(result.why)
        self._rooms.counts.commits += 1
        self._rooms.remember(pending.after)
        self._on_committed(command, before, pending.after)
        return pending.after

    async def _commit(self, change: Change, until: float, given_up: GivenUp) -> Committed | Conflict | Failed:
        """Store a change before `until`, by the time of the loop. The same change is tried again until then."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(0.05, 0.5)
        while True:
            try:
                not_after = await self._store.not_after(change.after.room_id, until)
                if given_up():
                    raise NotStored("its caller has given up")
                (result,) = await self._store.commit_each([replace(change, not_after=not_after)])
            except StoreUnavailable as error:
                result = Unavailable(str(error))
            if not isinstance(result, Unavailable):
                return result
            delay = backoff.next()
            if loop.time() + delay > until:
                self._on_gap(change.after.room_id)  # it may be stored all the same
                raise StoreUnavailable(result.why)
            await asyncio.sleep(delay)


def _until() -> float:
    return asyncio.get_running_loop().time() + STORED_SECONDS


def _is_opened_by(command: Open, room: Room) -> bool:
    asked = (command.user_1, command.user_2, command.chat_mode, command.duration_seconds)
    return asked == (room.side_1.user, room.side_2.user, room.chat_mode, room.duration_seconds)

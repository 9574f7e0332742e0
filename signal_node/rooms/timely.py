"""Changes with a deadline, for callers that do not wait long: stored in time, or never.

If Redis does not answer in time, the app's backend gets a 503 and retries. A change that was refused must not happen
later. So these changes do not wait in the journal. Each carries a deadline for reaching Redis, and the script rejects
it after that. The deadline is on the clock of the Redis server that stores the change, which is read first, so clocks
need not agree.

One case remains that no clock can decide: the change was stored in time, but the answer was lost.
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
"""How soon after the request a change must reach Redis. The caller waits slightly longer."""

NOBODY = ""
"""The node in whose name these changes are made. No node is called this, so all are notified, including this one."""


GivenUp = Callable[[], bool]
"""Whether the caller has gone. If this node stalled, the request may be old."""


class NoSuchRoom(Exception):
    """No room has this id."""


class AnotherRoom(Exception):
    """A different room with this id exists."""


class TimelyChanges:
    """Opens and ends rooms for the app's backend."""

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
        """Like `Rooms`, but with its own source of write ids: a record remembers the last write of each source."""
        self._store = store
        self._rooms = rooms
        self._rules = rules
        self._now = now
        self._new_write_id = new_write_id
        self._on_gap = on_gap
        self._on_committed = on_committed

    async def open(self, command: Open, given_up: GivenUp) -> Room:
        """Open a room. Returns the existing room if the same one was opened before.

        Raises AnotherRoom, IllegalTransition, NotStored, StoreUnavailable.
        """
        stored = await self._carry_out(command, None, _until(), given_up)
        if isinstance(stored, Conflict):
            if stored.current is None or not _is_opened_by(command, stored.current):
                raise AnotherRoom
            return stored.current
        return stored

    async def end(self, room_id: str, reason: EndReason, given_up: GivenUp) -> tuple[Room, list[Message]]:
        """End a room. Returns it, with its chat, even if it had already ended.

        Raises NoSuchRoom, BadRecord, NotStored, StoreUnavailable.
        """
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
        """Store a change before `until` (event loop time). Retry the same change until then."""
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
                self._on_gap(change.after.room_id)  # it may be stored nevertheless
                raise StoreUnavailable(result.why)
            await asyncio.sleep(delay)


def _until() -> float:
    return asyncio.get_running_loop().time() + STORED_SECONDS


def _is_opened_by(command: Open, room: Room) -> bool:
    asked = (command.user_1, command.user_2, command.chat_mode, command.duration_seconds)
    return asked == (room.side_1.user, room.side_2.user, room.chat_mode, room.duration_seconds)

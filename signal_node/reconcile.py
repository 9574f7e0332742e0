"""Compares the cache with Redis when something may have been missed, and heals whichever of the two is behind.

A room with changes under way takes nothing from Redis: its commits find out by themselves. What Redis has lost of it
is put back like that of any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from keepline.ops.backoff import Backoff
from keepline.room.catchup import missed
from keepline.room.codec import BadRecord, Event
from keepline.room.deadlines import due
from keepline.room.record import Message, Room, SideNumber
from keepline.room.rules import Rules
from signal_node import wire
from signal_node.rooms import Audience, Rooms
from signal_node.scripts import StoreUnavailable
from signal_node.store import Change, Conflict, RoomStore

INTERVAL_SECONDS = 30.0
"""How often all rooms are compared although nothing seems to have been missed."""

BATCH = 1_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReconcileCounts:
    """What comparing has found."""

    caught_up: int = 0
    put_back: int = 0


class Reconciler:
    """Keeps the cache and Redis the same. `run` is to be run as a task."""

    def __init__(
        self, node: str, store: RoomStore, audience: Audience, rules: Rules, now: Callable[[], int]
    ) -> None:
        """Take the clock as `now()` in ms since 1970."""
        self.counts = ReconcileCounts()
        self.rooms: Rooms
        self._node = node
        self._store = store
        self._audience = audience
        self._rules = rules
        self._now = now
        self._stale: set[str] = set()
        self._robbed: set[str] = set()
        self._all_wanted = False
        self._wanted = asyncio.Event()

    def look_at(self, room_id: str) -> None:
        """Something was missed of a room: compare it soon."""
        self._stale.add(room_id)
        self._wanted.set()

    def lost(self, room_id: str) -> None:
        """Redis has lost something of a room, and gets the record by a commit: put back its chat soon."""
        self._robbed.add(room_id)
        self._wanted.set()

    def look_at_all(self) -> None:
        """Something may have been missed of any room: compare all soon."""
        self._all_wanted = True
        self._wanted.set()

    async def run(self) -> None:
        """Compare when something was missed, and all rooms now and then, until cancelled."""
        backoff = Backoff(0.05, 2.0)
        while True:
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                self._all_wanted = True
            self._wanted.clear()
            everything, stale, robbed = self._all_wanted, self._stale, self._robbed
            self._all_wanted, self._stale, self._robbed = False, set(), set()
            try:
                await self.reconcile(self.rooms.ids() if everything else stale)
                for room_id in robbed:
                    await self._put_back_lines(room_id)
                backoff.reset()
            except (StoreUnavailable, BadRecord) as error:
                _log.warning("reconcile_postponed", error=str(error))
                self._stale |= stale
                self._robbed |= robbed
                self._all_wanted |= everything
                self._wanted.set()
                await asyncio.sleep(backoff.next())

    async def reconcile(self, room_ids: Iterable[str]) -> None:
        """Take what is newer in Redis, put back what is newer here or missing there.

        Clients are told what they missed. Raises StoreUnavailable, BadRecord.
        """
        wanted = [room for room_id in room_ids if (room := self.rooms.stored(room_id)) is not None]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            found = await self._store.compare(batch)
            behind = []
            for here, there in zip(batch, found, strict=True):
                if there is None or there.version < here.version:
                    behind.append((here, there))
                elif there.version > here.version:
                    if self.rooms.at_rest(here.room_id) is here:
                        await self._catch_up(here, there)
                elif self.rooms.untold(here.room_id) is not None:
                    await self._catch_up(here, there)
            if behind:
                await self._put_back(behind)

    async def put_back_chat(self, room_ids: Iterable[str]) -> None:
        """Add the lines that Redis has lost, also of rooms whose record another node was quicker to put back.

        That node knows the lines that were stored from there, and no others. Raises StoreUnavailable.
        """
        for room_id in room_ids:
            room, lines = self.rooms.at_rest(room_id), self.rooms.lines(room_id)
            if room is not None and await self._store.merge_chat(room_id, lines):
                await self._store.add_events([Event("restore", room, line) for line in lines])

    async def _catch_up(self, here: Room, there: Room) -> None:
        """Take a newer record, if it is newer, and tell the clients what they do not know of it."""
        known = self.rooms.untold(here.room_id) or here
        lines: list[Message] = []
        if there.last_seq > known.last_seq:
            lines = await self._store.lines_after(there.room_id, known.last_seq)
        if self.rooms.stored(here.room_id) is not here:
            self.look_at(here.room_id)  # something else has changed it meanwhile, and may have told them
            return
        told = [
            (side.session, frame)
            for number, side in zip(_NUMBERS, known.sides, strict=True)
            if side.session is not None and side.node == self._node
            for effect in missed(known, there, number, lines, self._now(), self._rules)
            if (frame := wire.event_frame(there.room_id, effect)) is not None
        ]
        self.counts.caught_up += 1
        self.rooms.catch_up(there)
        for session, frame in told:
            self._audience.deliver(session, wire.encode(frame))

    async def _put_back(self, behind: Sequence[tuple[Room, Room | None]]) -> None:
        """Store again what Redis has lost: record, lines of chat, and the events for the persister.

        `behind` has the records as they are here, and as Redis has them.
        """
        for here, _ in behind:
            await self._put_back_lines(here.room_id)
        self.counts.put_back += len(behind)
        results = await self._store.commit([self._change(here, there) for here, there in behind])
        for (here, _), result in zip(behind, results, strict=True):
            if isinstance(result, Conflict) and (
                result.current is None or result.current.version < here.version
            ):
                self.look_at(here.room_id)  # another node put back what it knew, which is less

    async def _put_back_lines(self, room_id: str) -> None:
        room, lines = self.rooms.stored(room_id), self.rooms.lines(room_id)
        if room is not None and lines:
            await self._store.merge_chat(room_id, lines)
            await self._store.add_events([Event("restore", room, line) for line in lines])

    def _change(self, here: Room, there: Room | None) -> Change:
        deadline = due(here, self._rules)
        due_at = None if deadline is None else deadline.at
        return Change("restore", 0 if there is None else there.version, there, here, None, due_at, {})


_NUMBERS: tuple[SideNumber, ...] = (1, 2)

"""Compares the cache with Redis after something may have been missed, and updates whichever of the two is behind.

A room with a commit in progress takes nothing from Redis, because its commit finds out by itself. If Redis has lost it,
it is written back like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from keepline.ops.backoff import Backoff
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.catchup import missed
from keepline.room.codec import RESTORED, BadRecord, Event
from keepline.room.deadlines import due
from keepline.room.effects import PeerChanged
from keepline.room.record import SIDES, Message, Room, other
from keepline.room.rules import Rules
from signal_node.protocol import server_frames
from signal_node.rooms.cache import Audience, Rooms
from signal_node.rooms.evicted import KEPT_MS, Untold
from signal_node.rooms.store import Change, Conflict, RoomStore
from signal_node.rooms.suspicions import Suspicions

INTERVAL_SECONDS = 30.0
"""How often all rooms are compared without any suspicion."""

BATCH = 1_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReconcileCounts:
    """Results of comparisons."""

    caught_up: int = 0
    put_back: int = 0


class Reconciler:
    """Keeps the cache and Redis consistent. Run `run` as a task."""

    def __init__(
        self,
        node: str,
        rooms: Rooms,
        suspicions: Suspicions,
        store: RoomStore,
        audience: Audience,
        rules: Rules,
        now: Callable[[], int],
    ) -> None:
        """`now()` is the time in ms since 1970."""
        self.counts = ReconcileCounts()
        self.suspicions = suspicions
        self._node = node
        self._rooms = rooms
        self._store = store
        self._audience = audience
        self._rules = rules
        self._now = now

    async def run(self) -> None:
        """Compare suspected rooms, and all rooms at intervals, until cancelled."""
        backoff = Backoff(0.05, 2.0)
        while True:
            suspected = True
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self.suspicions.noted()
            except TimeoutError:
                self.suspicions.look_at_all()
                suspected = False
            suspects = self.suspicions.take()
            try:
                room_ids = self._rooms.ids() if suspects.everything else suspects.missed
                await self.reconcile(room_ids, suspected=suspected)
                for room_id in suspects.lost:
                    await self._put_back_lines(room_id)
                backoff.reset()
            except StoreUnavailable as error:
                _log.warning("reconcile_postponed", error=str(error))
                self.suspicions.give_back(suspects)
                await asyncio.sleep(backoff.next())

    async def reconcile(self, room_ids: Iterable[str], *, suspected: bool = False) -> None:
        """Take over what is newer in Redis, and write back what is newer here or missing there.

        Clients are told what they missed. `suspected`: there is a reason to compare, so Redis may also lack chat
        messages of records that it has. Unreadable records are left alone. Raises StoreUnavailable.
        """
        wanted = [room for room_id in room_ids if (room := self._rooms.stored(room_id)) is not None]
        for room in wanted:
            await self._tell_untold(room.room_id)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            found = await self._store.compare(batch)
            behind = []
            for here, there in zip(batch, found, strict=True):
                if isinstance(there, BadRecord):
                    continue
                if there is None or there.version < here.version:
                    behind.append((here, there))
                    continue
                if there.version > here.version and self._rooms.at_rest(here.room_id) is here:
                    await self._catch_up(here, there)
                if suspected and self._may_lack_lines(there):
                    await self._put_back_missing_lines(there)
            if behind:
                await self._put_back(behind)

    def _may_lack_lines(self, there: Room) -> bool:
        """Whether messages stored from here recently belong to a record that another node may have written back.

        That node knows only its own messages. Those beyond the record's last message stay out, because their numbers
        are assigned again.
        """
        lines = self._rooms.lines(there.room_id)
        return bool(lines) and lines[-1].at > self._now() - KEPT_MS and lines[-1].seq <= there.last_seq

    async def put_back_chat(self, room_ids: Iterable[str]) -> None:
        """Write back messages that Redis has lost, also for rooms whose record another node wrote back first.

        That node knows only the messages that were stored from there. Raises StoreUnavailable.
        """
        for room_id in room_ids:
            room = self._rooms.at_rest(room_id)
            if room is not None:
                await self._put_back_missing_lines(room)

    async def _put_back_missing_lines(self, room: Room) -> None:
        lines = self._rooms.lines(room.room_id)
        try:
            if await self._store.merge_chat(room.room_id, lines):
                await self._tell_persister(room, lines)
        except StoreUnavailable:
            self.suspicions.lost(
                room.room_id
            )  # they may be in Redis already, but the persister does not have them
            raise

    async def _tell_persister(self, room: Room, lines: Sequence[Message]) -> None:
        await self._store.add_events([Event(RESTORED, room, line) for line in lines])

    async def _catch_up(self, here: Room, there: Room) -> None:
        lines = await self._lines_between(here, there)
        if self._rooms.at_rest(here.room_id) is not here:
            return  # the room has been updated in another way meanwhile
        self.counts.caught_up += 1
        caught_up = self._rooms.catch_up(there)
        if caught_up is not None:
            self._tell(caught_up, lines)

    async def _tell_untold(self, room_id: str) -> None:
        for untold in self._rooms.untold(room_id):
            lines = await self._lines_between(untold.known, untold.there)
            if self._rooms.take_untold(untold):
                self._tell(untold, lines)

    async def _lines_between(self, known: Room, there: Room) -> list[Message]:
        """The messages between two records."""
        if there.last_seq <= known.last_seq:
            return []
        lines = await self._store.lines_after(there.room_id, known.last_seq)
        return [line for line in lines if line.seq <= there.last_seq]

    def _tell(self, untold: Untold, lines: Sequence[Message]) -> None:
        """Tell clients that know one record what led to the other, except for what is outdated."""
        known, there = untold.known, untold.there
        now = self._rooms.get(there.room_id) or there
        for number, side in zip(SIDES, known.sides, strict=True):
            if side.session is None or side.node != self._node:
                continue
            peer = other(number)
            changed_since = now.side(peer).presence is not there.side(peer).presence
            for effect in missed(known, there, number, lines, self._now(), self._rules):
                if isinstance(effect, PeerChanged) and changed_since:
                    continue
                frame = server_frames.event_frame(there.room_id, effect)
                if frame is not None:
                    self._audience.deliver(side.session, server_frames.encode(frame))

    async def _put_back(self, behind: Sequence[tuple[Room, Room | None]]) -> None:
        """Store again what Redis has lost: record, chat messages, and the events for the persister.

        `behind` has pairs of records: the one here, and the one in Redis.
        """
        for here, _ in behind:
            await self._put_back_lines(here.room_id)
        self.counts.put_back += len(behind)
        results = await self._store.commit([self._change(here, there) for here, there in behind])
        for (here, _), result in zip(behind, results, strict=True):
            if isinstance(result, Conflict) and (
                result.current is None or result.current.version < here.version
            ):
                self.suspicions.look_at(here.room_id)  # another node wrote back what it knew, which is less

    async def _put_back_lines(self, room_id: str) -> None:
        room, lines = self._rooms.stored(room_id), self._rooms.lines(room_id)
        if room is not None and lines:
            await self._store.merge_chat(room_id, lines)
            await self._tell_persister(room, lines)

    def _change(self, here: Room, there: Room | None) -> Change:
        deadline = due(here, self._rules)
        due_at = None if deadline is None else deadline.at
        return Change(RESTORED, 0 if there is None else there.version, there, here, None, due_at, {})

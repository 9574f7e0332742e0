"""What nodes do when Redis has lost data, or starts empty: a flush, a failover to an empty replica, a cold start.

Of each partition without an epoch: every node puts back the rooms that it holds (the newest version wins, what has
ended stays so). Then one node, under a lease, fills in from Postgres: what has ended lately as tombstones, live rooms
that were touched in the last ten minutes with nobody connected and a fresh grace period; older ones it ends. At last it
writes the epoch, and the partition is whole. Until then rooms that are not there are `unavailable`, not `not found`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.deadlines import due
from keepline.room.record import ChatMode, EndReason, Room, Status
from keepline.room.rules import Rules
from keepline.room.state import apply
from keepline.room.writes import written
from signal_node.cluster.epochs import Epochs
from signal_node.cluster.registry import Registry
from signal_node.limits.address_limits import AddressLimits
from signal_node.rooms.archive import Archive, Archived, ArchiveUnavailable
from signal_node.rooms.cache import Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import Change, Committed, Conflict, Found, RoomStore
from signal_node.users.ownership import Users

LEASE = "recovery"
LEASE_MS = 30_000
INTERVAL_SECONDS = 0.5
OTHERS_SECONDS = 3.0
"""How long the one that fills in waits for others to put back what they hold."""

TOUCHED_MS = 10 * 60_000
"""Rooms that nothing has happened in for longer do not come back."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RecoveryCounts:
    """What recoveries have done."""

    partitions: int = 0
    revived: int = 0
    ended: int = 0


class Recovery:
    """Watches the epochs and heals partitions that have none. `run` is to be run as a task."""

    def __init__(
        self,
        node: str,
        rooms: Rooms,
        reconciler: Reconciler,
        store: RoomStore,
        users: Users,
        epochs: Epochs,
        registry: Registry,
        archive: Archive | None,
        limits: AddressLimits,
        rules: Rules,
        *,
        grace_ms: int,
        tombstone_ms: int,
        live: Callable[[], set[str]],
        now: Callable[[], int],
        new_write_id: Callable[[], str],
    ) -> None:
        """Take `grace_ms`, how long the sides of a room from Postgres have to come back, and `live()`, the nodes."""
        self.counts = RecoveryCounts()
        self.whole = False
        self._postgres_away = False
        self._node = node
        self._rooms = rooms
        self._reconciler = reconciler
        self._store = store
        self._users = users
        self._epochs = epochs
        self._registry = registry
        self._archive = archive
        self._limits = limits
        self._rules = rules
        self._grace_ms = grace_ms
        self._tombstone_ms = tombstone_ms
        self._live = live
        self._known: list[bytes | None] = []
        self._now = now
        self._new_write_id = new_write_id

    @property
    def open(self) -> bool:
        """Whether clients may come: also while only rooms of Postgres are missing, and Postgres is away."""
        return self.whole or self._postgres_away

    async def run(self) -> None:
        """Look twice a second, until cancelled."""
        while True:
            try:
                await self.look()
                self._postgres_away = False
            except ArchiveUnavailable as error:
                self._postgres_away = True
                _log.warning("recovery_postponed", error=str(error))
            except (StoreUnavailable, BadRecord) as error:
                _log.warning("recovery_postponed", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        """Heal what has to be healed now. Raises StoreUnavailable, ArchiveUnavailable, BadRecord."""
        epochs = await self._epochs.read()
        lost = [at for at, epoch in enumerate(epochs) if epoch is None]
        self.whole = not lost
        if epochs != self._known:
            # Also when another node has been quicker: what is held here must be put back by this node.
            await self._reconciler.reconcile(self._rooms.ids())
            await self._reconciler.put_back_chat(self._rooms.ids())
            await self._users.put_back()
            await self._limits.put_back()
        for partition in lost:
            await self._epochs.put_back(partition, self._node)
        if lost:
            await self._fill_in(lost)
            epochs = await self._epochs.read()
            self.whole = None not in epochs
        self._known = epochs

    async def _fill_in(self, lost: Sequence[int]) -> None:
        """Bring back from Postgres what no node holds, of those partitions that no other node is busy with."""
        leased = [partition for partition in lost if await self._registry.lease(partition, LEASE, LEASE_MS)]
        try:
            epochs = await self._epochs.read()  # whoever had the lease before may have done the work
            mine = [partition for partition in leased if epochs[partition] is None]
            if not mine:
                return
            await self._wait_for_others(mine[0])
            if self._archive is not None:
                await self._fill(self._archive, frozenset(mine))
            await self._epochs.begin(mine)
            self.counts.partitions += len(mine)
            _log.info("partitions_recovered", partitions=len(mine), revived=self.counts.revived)
        finally:
            for partition in leased:
                await self._registry.end_lease(partition, LEASE)

    async def _wait_for_others(self, partition: int) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + OTHERS_SECONDS
        while loop.time() < give_up_at:
            if self._live() <= await self._epochs.have_put_back(partition):
                return
            await asyncio.sleep(0.05)

    async def _fill(self, archive: Archive, partitions: frozenset[int]) -> None:
        async for limited in archive.limited():
            await self._limits.logins.restore(limited, partitions)
        async for batch in archive.unfinished(self._tombstone_ms / 1_000):
            concerned = [a for a in batch if self._store.partition_of(a.room.room_id) in partitions]
            room_ids = [a.room.room_id for a in concerned]
            stored = await self._store.load_many(room_ids)
            changes = [self._change(a, there) for a, there in zip(concerned, stored, strict=True)]
            results = await self._store.commit([change for change in changes if change is not None])
            if any(isinstance(result, Conflict) for result in results):
                _log.info("rooms_came_back_meanwhile")
            stored = await self._store.load_many(room_ids)
            for archived, there in zip(concerned, stored, strict=True):
                await self._put_back_chat(archived, there)

    async def bring_back(self, room_id: str) -> bool:
        """Store again one room that Postgres has and Redis has not, or not as new; False when there is none.

        Raises StoreUnavailable, ArchiveUnavailable, BadRecord.
        """
        archived = None if self._archive is None else await self._archive.load(room_id)
        if archived is None:
            return False
        (there,) = await self._store.load_many([room_id])
        change = self._change(archived, there)
        if change is None:
            return False
        (result,) = await self._store.commit([change])
        await self._put_back_chat(archived, change.after if isinstance(result, Committed) else there)
        return isinstance(result, Committed)

    async def _put_back_chat(self, archived: Archived, there: Found) -> None:
        # Lines beyond the record's last came to Postgres too late: their numbers are given out again.
        last_seq = there.last_seq if isinstance(there, Room) else 0
        lines = [line for line in archived.messages if line.seq <= last_seq]
        await self._store.merge_chat(archived.room.room_id, lines)

    def _change(self, archived: Archived, there: Found) -> Change | None:
        """What is to be stored of a room from Postgres, given what Redis has of it. An unreadable record stays."""
        room = archived.room
        if isinstance(there, BadRecord):
            return None
        if room.status is Status.ENDED:
            if there is not None and (there.status is Status.ENDED or there.version > room.version):
                return None
            return Change("restore", 0 if there is None else there.version, there, room, None, None, {})
        if there is not None and there.version >= room.version:
            return None  # a node knew it, and put it back
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
        kind = type(command).__name__.lower()
        expected = 0 if there is None else there.version
        return Change(kind, expected, there, after, None, None if deadline is None else deadline.at, {})


def _reason(room: Room) -> EndReason:
    """Why a room that everybody has been away from for too long is over."""
    if room.met_at is None:
        return EndReason.NO_SHOW
    return EndReason.INACTIVITY if room.chat_mode is ChatMode.TEXT else EndReason.GRACE_EXPIRED

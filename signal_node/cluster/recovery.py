"""Recovery after Redis has lost data, or starts empty: a flush, a failover to an empty replica, a cold start.

For each partition without epoch, every node writes back the rooms that it holds (the newest version wins, and ended
rooms stay ended). After all live nodes have done so, or after some seconds, the rest comes from Postgres. From then on
clients may connect. The rooms of a connecting client are restored at once (`recalls`), so that no client waits for the
last room, and no grace period runs before clients can connect.

Meanwhile the nodes divide the partitions among themselves, each under a lease that is renewed, and restore all rooms
(`revival`): live rooms that changed in the last ten minutes return without connected sides and with a new grace period.
Older ones end, and recently ended ones return as tombstones. Then the partition gets its epoch. Until then missing
rooms are `unavailable`, not `not found`.
"""

from __future__ import annotations

import asyncio
from binascii import crc32
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.codec import BadRecord
from signal_node.cluster.epochs import Epochs
from signal_node.cluster.recalls import Recalls
from signal_node.cluster.registry import Registry
from signal_node.cluster.revival import Revival
from signal_node.limits.address_limits import AddressLimits
from signal_node.rooms.archive import BATCH_ROWS, Archive, ArchiveUnavailable
from signal_node.rooms.cache import Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.users.ownership import Users

LEASE = "recovery"
LEASE_MS = 30_000
INTERVAL_SECONDS = 0.5
OTHERS_SECONDS = 3.0
"""How long a node waits for other nodes to write back what they hold."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RecoveryCounts:
    """Results of recoveries."""

    partitions: int = 0


class LeaseLost(Exception):
    """Another node has taken over the partition."""


class Recovery:
    """Watches the epochs and restores partitions that have none. Run `run` as a task."""

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
        revival: Revival,
        *,
        tombstone_ms: int,
        live: Callable[[], set[str]],
        clock_changes: Callable[[], int],
    ) -> None:
        """`live()` are the live nodes. `clock_changes()` is how often a clock was set.

        After a clock change, Redis may have dropped what this node holds.
        """
        self.counts = RecoveryCounts()
        self.revival = revival
        self.recalls = Recalls(self._bring_back_rooms_of)
        self.whole = False
        # For these partitions, all nodes have written back what they hold. Only Postgres can have the rest.
        self._asking: frozenset[int] = frozenset()
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
        self._tombstone_ms = tombstone_ms
        self._live = live
        self._known: list[bytes | None] = []
        self._clock_changes = clock_changes
        self._known_changes = clock_changes()

    @property
    def open(self) -> bool:
        """Whether clients may connect, also while only rooms from Postgres are missing, which are restored when clients
        connect.
        """
        return self.whole or bool(self._asking) or self._postgres_away

    @property
    def unreadable_rows(self) -> int:
        """Unreadable rows of Postgres, counted each time they are read."""
        return 0 if self._archive is None else self._archive.unreadable

    async def run(self) -> None:
        """Check twice a second, until cancelled."""
        while True:
            try:
                await self.heal()
                self._postgres_away = False
            except ArchiveUnavailable as error:
                self._postgres_away = True
                _log.warning("recovery_postponed", error=str(error))
            except (StoreUnavailable, BadRecord, LeaseLost) as error:
                _log.warning("recovery_postponed", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def heal(self) -> None:
        """Restore what is missing. Raises StoreUnavailable, ArchiveUnavailable, BadRecord, LeaseLost."""
        epochs = await self._epochs.read()
        lost = [at for at, epoch in enumerate(epochs) if epoch is None]
        self.whole = not lost
        clock_changes = self._clock_changes()
        if epochs != self._known or clock_changes != self._known_changes:
            # Even if another node was faster: only this node can write back what it holds.
            await self._reconciler.reconcile(self._rooms.ids())
            await self._reconciler.put_back_chat(self._rooms.ids())
            await self._users.put_back()
            await self._limits.put_back()
        if not self._asking.issuperset(lost):
            self._asking = frozenset()
        for partition in lost:
            await self._epochs.note_put_back(partition, self._node)
        if lost:
            await self._wait_for_others(lost[0])
            self._asking = frozenset(lost)
            await self._fill_in(lost)
            epochs = await self._epochs.read()
            self.whole = None not in epochs
        self._known, self._known_changes = epochs, clock_changes

    async def _wait_for_others(self, partition: int) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + OTHERS_SECONDS
        while loop.time() < give_up_at:
            if self._live() <= await self._epochs.have_put_back(partition):
                return
            await asyncio.sleep(0.05)

    async def _fill_in(self, lost: Sequence[int]) -> None:
        """Restore from Postgres what no node holds, for the partitions that no other node is working on."""
        room_ids: dict[int, list[str]] | None = None
        first = crc32(self._node.encode()) % len(lost)  # so that not all nodes start with the same one
        for partition in (*lost[first:], *lost[:first]):
            if not await self._registry.lease(partition, LEASE, LEASE_MS):
                continue
            try:
                if (await self._epochs.read())[partition] is not None:
                    continue  # the previous holder of the lease has done the work
                if self._archive is not None:
                    if room_ids is None:
                        room_ids = await self._prepare(self._archive, lost)
                    await self._fill(self._archive, partition, room_ids[partition])
                await self._epochs.begin([partition])
                self.counts.partitions += 1
                _log.info("partition_recovered", partition=partition, revived=self.revival.counts.revived)
            finally:
                await self._registry.end_lease(partition, LEASE)

    async def _prepare(self, archive: Archive, lost: Sequence[int]) -> dict[int, list[str]]:
        """Restore the failed logins, which are few, and find the rooms of each partition."""
        async for limited in archive.limited():
            await self._limits.logins.restore(limited, frozenset(lost))
        room_ids: dict[int, list[str]] = {partition: [] for partition in range(self._store.partitions)}
        async for page in archive.room_ids(self._tombstone_ms / 1_000):
            for room_id in page:
                room_ids[self._store.partition_of(room_id)].append(room_id)
            await asyncio.sleep(0)
        return room_ids

    async def _fill(self, archive: Archive, partition: int, room_ids: Sequence[str]) -> None:
        """Restore the rooms of a partition, batch by batch. Raises LeaseLost."""
        for start in range(0, len(room_ids), BATCH_ROWS):
            if not await self._registry.lease(partition, LEASE, LEASE_MS):
                raise LeaseLost(f"another node fills partition {partition}")
            await self.revival.store(await archive.load_many(room_ids[start : start + BATCH_ROWS]))

    async def bring_back_rooms_of(self, user: str) -> bool:
        """Restore the rooms of a returning user before all others, if any may be missing.

        Raises StoreUnavailable.
        """
        if self.whole or not self._asking or self._archive is None:
            return False
        await self.recalls.rooms_of(user)
        return True

    async def _bring_back_rooms_of(self, users: Sequence[str]) -> None:
        if self._archive is not None:
            await self.revival.store(await self._archive.live_rooms_of(users))

    async def bring_back(self, room_id: str) -> bool:
        """Restore one room that is missing or older in Redis than in Postgres; False if there is none.

        Raises StoreUnavailable, ArchiveUnavailable, BadRecord.
        """
        archived = None if self._archive is None else await self._archive.load(room_id)
        return archived is not None and await self.revival.store([archived]) > 0

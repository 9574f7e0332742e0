"""Carries out the deadlines of rooms, no matter which node set them.

Each partition has an order of nodes (rendezvous hashing, Thaler and Ravishankar 1998). The first node takes deadlines
at once, the second takes those that are a second overdue, and so on. This shares the work, and covers for a dead node
before anyone notices its death. If two nodes take the same room, no harm is done: the version of the record lets only
one change through.

While the cluster is crowded, sides that were lost with their node have longer to return (`keepline.room.deadlines`). A
room in which nothing else is due is then left alone, and taken again when its lease has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b

import structlog

from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.deadlines import due
from keepline.room.record import Room
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import JournalFull, NotStored
from signal_node.rooms.store import RoomStore
from signal_node.signaling.room_commands import RoomCommands

INTERVAL_SECONDS = 0.2
STAND_IN_MS = 1_000
"""Delay between successive nodes of a partition's order."""

LEASE_MS = 5_000
AT_MOST = 128
"""Number of rooms per partition that are taken at once."""

_log = structlog.get_logger(__name__)


def rank(node: str, nodes: Sequence[str], partition: int) -> int:
    """The position of a node in the partition's order of nodes, from 0. An unlisted node comes last."""
    order = sorted(nodes, key=lambda name: _weight(name, partition), reverse=True)
    return order.index(node) if node in order else len(order)


def _weight(node: str, partition: int) -> bytes:
    return blake2b(f"{partition}:{node}".encode(), digest_size=8).digest()


class DeadlineWorker:
    """Sends Tick to rooms with due deadlines. Run `run` as a task."""

    def __init__(
        self,
        node: str,
        rooms: Rooms,
        room_commands: RoomCommands,
        store: RoomStore,
        rules: Rules,
        crowded: Callable[[], bool],
        now: Callable[[], int],
    ) -> None:
        """`crowded()` is whether a node of the cluster is still letting in a crowd."""
        self._now = now
        self._node = node
        self._rooms = rooms
        self._room_commands = room_commands
        self._store = store
        self._rules = rules
        self._crowded = crowded
        self._extended: dict[str, int] = {}
        self._nodes: Sequence[str] = ()
        self._ranks: list[int] = []
        self.use_nodes(())

    def use_nodes(self, nodes: Sequence[str]) -> None:
        """Divide the partitions among these live nodes."""
        self._nodes = nodes
        partitions = range(self._store.partitions)
        self._ranks = [rank(self._node, nodes, partition) for partition in partitions]

    @property
    def extended(self) -> int:
        """Rooms of this node's partitions that would have ended by now if the cluster were not crowded."""
        return len(self._extended)

    async def run(self) -> None:
        """Check five times a second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.carry_out_due()
            except StoreUnavailable as error:
                _log.warning("deadlines_unavailable", error=str(error))

    async def carry_out_due(self) -> None:
        """Take due deadlines and carry them out. Raises StoreUnavailable."""
        now = self._now()
        by = [now - place * STAND_IN_MS for place in self._ranks]
        taken = await self._store.pop_due(by, now + LEASE_MS, AT_MOST)
        self._forget_extended(now)
        await asyncio.gather(*(self._tick(room_id, now) for room_id in taken))

    async def _tick(self, room_id: str, now: int) -> None:
        try:
            room = await self._rooms.find(room_id)
            if room is None:
                await self._store.clear_deadline(room_id)
            else:
                after = await self._room_commands.execute(room, room_id, commands.Tick(self._crowded()), now)
                self._note(after, now)
        except BadRecord:
            pass  # the store has logged it; other rooms continue
        except (IllegalTransition, JournalFull, NotStored) as error:
            _log.error("deadline_not_met", room=room_id, error=str(error))

    def _note(self, room: Room, now: int) -> None:
        deadline = due(room, self._rules)
        if deadline is not None and deadline.at <= now:
            self._extended[room.room_id] = now
        else:
            self._extended.pop(room.room_id, None)

    def _forget_extended(self, now: int) -> None:
        """Deadlines that are not taken again have been met meanwhile, here or elsewhere."""
        self._extended = {room_id: at for room_id, at in self._extended.items() if now - at < 2 * LEASE_MS}

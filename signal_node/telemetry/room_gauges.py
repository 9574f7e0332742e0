"""Number of rooms by status and mode, counted at intervals, a few at a time, to leave the event loop time for other
work.

A room with sides on two nodes is in both caches. The node with the first held side counts it, so that the nodes' counts
add up. Rooms without members present are in no cache; Postgres knows them.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from keepline.room.record import Room
from signal_node.rooms.cache import Rooms

INTERVAL_SECONDS = 5.0
AT_ONCE = 500

Kind = tuple[str, str]
"""Status and mode."""


class RoomGauges:
    """Counts the rooms of one node. Run `run` as a task."""

    def __init__(self, node: str, rooms: Rooms) -> None:
        self.counts: Counter[Kind] = Counter()
        self._node = node
        self._rooms = rooms

    async def run(self) -> None:
        """Count again every few seconds, until cancelled."""
        while True:
            await self.count()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def count(self) -> None:
        """Count all rooms, with pauses for other work."""
        counts: Counter[Kind] = Counter()
        cached = self._rooms.cached()
        for start in range(0, len(cached), AT_ONCE):
            for room_id in cached[start : start + AT_ONCE]:
                room = self._rooms.get(room_id)
                if room is not None and self._counts_here(room):
                    counts[(room.status.value, room.chat_mode.value)] += 1
            await asyncio.sleep(0)
        self.counts = counts

    def _counts_here(self, room: Room) -> bool:
        return (room.side_1.node or room.side_2.node) == self._node

"""Carries out what is due in rooms, whichever node set the deadline.

Every node looks; two that find the same room do no harm, because the version of the record lets only one change
through. The deadline itself is kept by the commit script, so it goes when the room has moved on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.state import IllegalTransition
from signal_node.node import Node
from signal_node.rooms import JournalFull, NotStored
from signal_node.store import StoreUnavailable

INTERVAL_SECONDS = 0.25
AT_MOST = 64
"""Rooms of one partition that one look takes on."""

_log = structlog.get_logger(__name__)


class Timekeeper:
    """Ticks the rooms that are due. `run` is to be run as a task."""

    def __init__(self, node: Node, now: Callable[[], int]) -> None:
        self._node = node
        self._now = now

    async def run(self) -> None:
        """Look every quarter of a second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                for room_id in await self._node.store.due(self._now(), AT_MOST):
                    await self._tick(room_id)
            except StoreUnavailable as error:
                _log.warning("deadlines_unavailable", error=str(error))

    async def _tick(self, room_id: str) -> None:
        try:
            room = await self._node.rooms.find(room_id)
            if room is None:
                await self._node.store.forget_deadline(room_id)
            else:
                await self._node.execute(room, room_id, commands.Tick())
        except (BadRecord, IllegalTransition, JournalFull, NotStored) as error:
            _log.error("deadline_not_met", room=room_id, error=str(error))

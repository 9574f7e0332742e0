"""Deletes ended rooms an hour after their end, by the cluster's time.

TTLs follow Redis' clock. If that clock is set forward, Redis drops ended rooms too early, and a node that was cut off
then could restore such a room as live. So a sorted set lists ended rooms by the time at which nodes delete them. They
also have a TTL that is a day longer, in case no node deletes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Call, Script, StoreUnavailable, text
from keepline.room import keys

LEFT_OVER_MS = 24 * 3_600 * 1_000
"""Extra lifetime of a tombstone. Redis' clock may be set forward by as much."""

INTERVAL_SECONDS = 5.0
LEASE_MS = 30_000
AT_MOST = 250
"""Maximum number of rooms deleted per partition and round trip."""

_log = structlog.get_logger(__name__)


def wall_ms() -> int:
    """Ms since 1970 by this machine's clock."""
    return int(time.time() * 1_000)


class Tombstones:
    """Deletes expired tombstones. Run `run` as a task."""

    def __init__(self, client: Client, partitions: int, now: Callable[[], int]) -> None:
        """`now()` is the time in ms since 1970."""
        self._partitions = partitions
        self._now = now
        self._pop = Script(client, __package__, "pop_due.lua")
        self._forget = Script(client, __package__, "forget.lua")

    async def run(self) -> None:
        """Check every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                while await self.forget_old() >= AT_MOST:
                    pass
            except StoreUnavailable as error:
                _log.warning("tombstones_unavailable", error=str(error))

    async def forget_old(self) -> int:
        """Delete some of the expired rooms, and return their number.

        Skips unreachable partitions. Raises StoreUnavailable.
        """
        now = self._now()
        until = now + LEASE_MS
        pops: list[Call] = [([keys.ended(p)], [now, until, AT_MOST]) for p in range(self._partitions)]
        answers = await self._pop.run_many(pops)
        forget = [
            _forgetting(partition, text(room_id), until)
            for partition, answer in enumerate(answers)
            if not isinstance(answer, RedisError)
            for room_id in answer
        ]
        if forget:
            await self._forget.run_many(forget)
        return len(forget)


def _forgetting(partition: int, room_id: str, until: int) -> Call:
    record, chat, trace = (name(partition, room_id) for name in (keys.room, keys.chat, keys.trace))
    return [record, chat, trace, keys.ended(partition)], [room_id, until]

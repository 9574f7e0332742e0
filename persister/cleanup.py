"""Deletes expired rows. One persister at a time does this, in batches that hold no lock for long.

The ids of deleted rooms are kept, because an event may still arrive, from a persister that hung or from the dead
letters. Such an event must not restore the room; `Database.write` ensures that.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import structlog

from keepline.ops.health import Probe
from persister.database import QUERIES, Database, NotNow
from persister.metrics import Metrics

BATCH_ROWS = 500

_LOCK = 0x6B65_6570_7469_6479  # "keeptidy": the advisory lock for deleting a batch

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Periods:
    """How long rows are kept, and the interval between sweeps, in seconds.

    `ended` counts from when the end of a room was written, `removed` from when the room was deleted.
    """

    ended: float
    removed: float
    referrals: float
    interval: float


class Cleanup:
    """Sweeps the tables at intervals. Every persister has one; a lock in Postgres lets only one of them work
    at a time.
    """

    def __init__(self, database: Database, metrics: Metrics, periods: Periods, *, postgres: Probe) -> None:
        self._database = database
        self._metrics = metrics
        self._postgres = postgres
        self._interval = periods.interval
        self._chores = (
            ("active_rooms", "remove_ended_rooms", periods.ended),
            ("removed_rooms", "forget_removed_rooms", periods.removed),
            ("referral_mappings", "remove_referrals", periods.referrals),
            ("rate_limits", "remove_expired_limits", 0.0),
        )

    async def run(self) -> None:
        """Sweep until cancelled, at random times so that persisters do not all start at once."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
            try:
                await self.sweep()
            except NotNow as error:
                self._postgres.failed(error)
                self._metrics.retries.labels(error.cause).inc()
                _log.warning("cleanup_postponed", cause=error.cause, error=str(error))

    async def sweep(self) -> int:
        """Delete all expired rows and return their number; 0 if another persister is doing it.

        Raises NotNow; batches that were deleted before stay deleted.
        """
        total = 0
        for table, query, seconds in self._chores:
            while (removed := await self._remove(query, seconds)) is not None:
                total += removed
                self._metrics.rows_removed.labels(table).inc(removed)
                if removed < BATCH_ROWS:
                    break
        return total

    async def _remove(self, query: str, seconds: float) -> int | None:
        """Delete one batch in its own transaction; None if another persister holds the lock."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return None
            removed: int = await connection.fetchval(QUERIES[query], seconds, BATCH_ROWS)
            return removed

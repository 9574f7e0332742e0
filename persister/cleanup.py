"""Removes what has been kept long enough, by one worker at a time, in batches that hold no lock for long.

Of a removed room the id is remembered, for an event of it may still come: from a worker that hung, or from the dead
letters. Such an event must not bring the room back as live; `Database.write` looks after that.
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

_LOCK = 0x6B65_6570_7469_6479  # "keeptidy": the advisory lock of whoever removes a batch

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Periods:
    """How many seconds things are kept, and how many there are between two sweeps.

    `ended` counts from the moment in which the end of a room was written, `removed` from that of its removal.
    """

    ended: float
    removed: float
    referrals: float
    interval: float


class Cleanup:
    """Sweeps the tables now and then. Every worker has one; a lock in Postgres lets one of them work."""

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
        """Sweep until cancelled; not all workers at the same moment."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, no secret
            try:
                await self.sweep()
            except NotNow as error:
                self._postgres.failed(error)
                self._metrics.retries.labels(error.cause).inc()
                _log.warning("cleanup_postponed", cause=error.cause, error=str(error))

    async def sweep(self) -> int:
        """Remove all that is due and return how many rows that were; 0 when another worker is at it.

        Raises NotNow; what was removed by then stays so.
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
        """Remove one batch in a transaction of its own; None when another worker holds the lock."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                return None
            removed: int = await connection.fetchval(QUERIES[query], seconds, BATCH_ROWS)
            return removed

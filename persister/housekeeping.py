"""Background work of a persister: measures the backlog, trims the streams, monitors Postgres."""

from __future__ import annotations

import asyncio
import time

import structlog
from redis.exceptions import RedisError

from keepline.ops.health import Probe
from keepline.room import keys
from persister.database import Database, NotNow
from persister.metrics import Metrics
from persister.presence import Presences
from persister.stream import EventStreams, StreamsLost

_INTERVAL_SECONDS = 5.0
_PRUNE_EVERY = 60
_SAY_AGAIN_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class Housekeeping:
    """Runs periodic chores. Every persister does; each chore can safely run in several at once."""

    def __init__(
        self,
        streams: EventStreams,
        database: Database,
        metrics: Metrics,
        presences: Presences,
        *,
        redis: Probe,
        postgres: Probe,
    ) -> None:
        self._streams = streams
        self._database = database
        self._metrics = metrics
        self._presences = presences
        self._redis = redis
        self._postgres = postgres
        # when the last log line said that Postgres is away; None while it answers
        self._said_at: float | None = None

    async def watch_postgres(self) -> None:
        """Check every few seconds that Postgres answers, even while there is nothing to write."""
        while True:
            await self.look_at_postgres()
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def look_at_postgres(self) -> None:
        """Check once whether Postgres answers. Logs a failure at once, and again every minute."""
        try:
            await self._database.ping()
        except NotNow as error:
            self._postgres.failed(str(error))
            now = time.monotonic()
            if self._said_at is None or now - self._said_at > _SAY_AGAIN_SECONDS:
                self._said_at = now
                _log.warning("postgres_unavailable", cause=error.cause, error=str(error))
        else:
            self._postgres.succeeded()
            if self._said_at is not None:
                self._said_at = None
                _log.info("postgres_available")

    async def keep_streams(self) -> None:
        """Trim and measure the streams every few seconds."""
        rounds = 0
        while True:
            await self.tidy(prune=rounds % _PRUNE_EVERY == 0)
            rounds += 1
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def tidy(self, *, prune: bool) -> None:
        """Do the chores on the streams once. Errors are ignored here, because the worker meets them too and handles
        them.
        """
        try:
            self._metrics.trimmed.inc(await self._streams.trim())
            if prune:
                await self._streams.remove_gone_consumers()
            await self._presences.tell(self._postgres.error)
            backlog = await self._streams.backlog()
        except StreamsLost:
            return
        except (RedisError, OSError) as error:
            self._redis.failed(error)
            return
        self._redis.succeeded()
        self._metrics.streams.lag_entries.set(backlog.unread)
        self._metrics.streams.pending_entries.set(backlog.unacknowledged)
        self._metrics.streams.lag_seconds.set(backlog.oldest_seconds)
        self._metrics.streams.pending_seconds.set(backlog.oldest_pending_seconds)
        self._metrics.streams.dead_letters_waiting.set(backlog.dead_letters)
        for partition, (entries, age) in enumerate(backlog.partitions):
            self._metrics.streams.partition_lag_entries.labels(f"{partition:02}").set(entries)
            self._metrics.streams.partition_lag_seconds.labels(f"{partition:02}").set(age)
        self._metrics.streams.stream_fill.set(backlog.fullest / keys.MAX_EVENTS)

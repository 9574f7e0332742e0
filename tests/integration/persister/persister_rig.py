"""A persister's parts put together in the test's own process, and what to look at afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
from prometheus_client import CollectorRegistry

from keepline.ops.health import Health
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.codec import Event, encode_event
from persister.database import Database
from persister.housekeeping import Housekeeping
from persister.metrics import Metrics
from persister.presence import Presences
from persister.stream import GROUP, EventStreams
from persister.worker import Limits, Worker
from tests.helpers.waiting import eventually

PARTITIONS = 16


class Rig:
    """One worker with its own name, as the program puts it together."""

    def __init__(
        self,
        client: Client,
        pool: Pool,
        name: str,
        *,
        claim_idle_seconds: float = 30,
        create_users: bool = True,
    ) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.streams = EventStreams(client, name)
        self.database = Database(pool, create_users=create_users)
        self.health = health = Health(time.monotonic)
        redis, postgres = health.probe("redis"), health.probe("postgres")
        writes, one_database = health.last_try("writes"), health.last_try("one_database")
        limits = Limits(100, claim_idle_seconds, 0.2)
        self.worker = Worker(
            self.streams, self.database, self.metrics, limits, redis=redis, postgres=postgres, writes=writes
        )
        self.presences = Presences(client, self.database, name, writes=writes, one_database=one_database)
        self.chores = Housekeeping(
            self.streams, self.database, self.metrics, self.presences, redis=redis, postgres=postgres
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"keepline_persister_{name}", labels) or 0.0


async def publish(client: Client, events: Iterable[Event]) -> None:
    for event in events:
        stream = keys.events(keys.partition_of(event.room.room_id, PARTITIONS))
        await client.xadd(stream, {"event": encode_event(event)})


async def publish_together(client: Client, calls: list[list[Event]]) -> None:
    """Publish in one transaction, so that a worker that starts afterwards reads all of it at once.

    One that waits already is handed the first stream alone.
    """
    async with client.pipeline(transaction=True) as pipe:
        for events in calls:
            stream = keys.events(keys.partition_of(events[0].room.room_id, PARTITIONS))
            for event in events:
                pipe.xadd(stream, {"event": encode_event(event)})
        await pipe.execute()


async def stored(pool: Pool, room_id: str) -> asyncpg.Record | None:
    return await pool.fetchrow("SELECT * FROM active_rooms WHERE room_id = $1", UUID(room_id))


async def has_version(pool: Pool, event: Event) -> bool:
    row = await stored(pool, event.room.room_id)
    return row is not None and row["version"] == event.room.version


async def written(pool: Pool, event: Event) -> None:
    """Wait until the room of an event has its version."""
    check: Callable[[], bool | Awaitable[bool]] = partial(has_version, pool, event)
    await eventually(check)


async def all_acknowledged(client: Client) -> None:
    """Wait until no entry is left unacknowledged."""

    async def check() -> bool:
        return await pending(client) == 0

    condition: Callable[[], bool | Awaitable[bool]] = check
    await eventually(condition)


async def pending(client: Client) -> int:
    return sum([(await client.xpending(keys.events(p), GROUP))["pending"] for p in range(PARTITIONS)])


async def dead_letters(client: Client) -> list[dict[bytes, bytes]]:
    found: list[Any] = [await client.xrange(keys.dead_letters(p)) for p in range(PARTITIONS)]
    return [fields for letters in found for _, fields in letters]

"""What a real PostgreSQL refuses for a while: the batch is tried again until it is written, and nothing is buried."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from keepline.ops import postgres
from keepline.ops.postgres import Connection, Pool
from keepline.ops.redis.client import Client
from keepline.room.codec import Event
from persister.database import Database
from persister.fold import change_of, fold
from tests.helpers.waiting import eventually
from tests.integration.persister.persister_rig import (
    Rig,
    all_acknowledged,
    dead_letters,
    publish,
    publish_together,
    written,
)
from tests.unit.persister.calls import call, encoded

LOCK = "SELECT FROM active_rooms WHERE room_id = $1 FOR UPDATE"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection: Connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[Pool]:
    opened = await postgres.create_pool(url, application="keepline-persister")
    try:
        yield opened
    finally:
        await opened.close()


async def retried(rig: Rig, cause: str, times: int = 1) -> None:
    """Wait until writes have failed for that cause."""
    await eventually(lambda: rig.value("retries_total", cause=cause) >= times, what=f"a retry: {cause}")


async def all_is_well(client: Client, rig: Rig, cause: str) -> None:
    await all_acknowledged(client)
    assert await dead_letters(client) == []
    assert rig.value("retries_total", cause=cause) >= 1


async def test_a_database_that_is_read_only_for_a_while(client: Client, database_url: str) -> None:
    """Its sessions stay read-only when it is not any more, as behind a proxy after a failover: they are renewed."""
    name = urlsplit(database_url).path.lstrip("/")
    events = call()
    async with connected(database_url) as operator, pool_of(database_url) as pool:
        await operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        rig = Rig(client, pool, "one")
        async with rig.running():
            await publish(client, events)
            await retried(rig, "read_only")
            await operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
            await written(pool, events[-1])
            await all_is_well(client, rig, "read_only")


async def test_a_database_that_is_out_of_connections(client: Client, database_url: str) -> None:
    parts = urlsplit(database_url)
    role = f"persister_{UUID(call()[0].room.room_id).hex}"
    own_url = f"postgresql://{role}:secret@{parts.hostname}:{parts.port}{parts.path}"
    events = call()
    async with connected(database_url) as operator:
        await operator.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1")
        await operator.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        await operator.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        try:
            async with pool_of(own_url) as pool:
                rig = Rig(client, pool, "one")
                async with rig.running():
                    async with connected(own_url):
                        await publish(client, events)
                        await retried(rig, "resources", 2)
                    await all_is_well(client, rig, "resources")
                assert await pool.fetchval("SELECT max(version) FROM active_rooms") == len(events)
        finally:
            await operator.execute(f"DROP OWNED BY {role}")
            await operator.execute(f"DROP ROLE {role}")


async def test_a_deadlock_with_the_app(client: Client, database_url: str) -> None:
    name = urlsplit(database_url).path.lstrip("/")
    calls = sorted((call(lines=0) for _ in range(2)), key=lambda events: UUID(events[0].room.room_id))
    async with connected(database_url) as app, pool_of(database_url) as pool:
        await begun(pool, calls)
        # The first who has waited for so long is refused: that is the worker.
        await app.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '3s'")
        await app.execute("SET deadlock_timeout = '60s'")
        await pool.expire_connections()
        rig = Rig(client, pool, "one")
        async with AsyncExitStack() as worker:
            async with app.transaction():
                await app.execute(LOCK, UUID(calls[1][0].room.room_id))
                await publish_together(client, calls)
                await worker.enter_async_context(rig.running())
                await waits_for_a_lock(app)
                await app.execute(LOCK, UUID(calls[0][0].room.room_id))
                await retried(rig, "conflict")
            for events in calls:
                await written(pool, events[-1])
            await all_is_well(client, rig, "conflict")


async def test_a_lock_that_outlasts_the_time_for_a_statement(
    client: Client, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepline.ops.postgres.pool.COMMAND_SECONDS", 0.3)
    events = call()
    async with connected(database_url) as app, pool_of(database_url) as pool:
        await begun(pool, [events])
        rig = Rig(client, pool, "one", claim_idle_seconds=1)
        async with rig.running():
            async with app.transaction():
                await app.execute(LOCK, UUID(events[0].room.room_id))
                await publish(client, events)
                await retried(rig, "timeout", 2)
            await written(pool, events[-1])
            await all_is_well(client, rig, "timeout")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_database_that_isolates_transactions_more_than_by_default(
    client: Client, database_url: str, level: str
) -> None:
    name = urlsplit(database_url).path.lstrip("/")
    events = call()
    room_id = UUID(events[0].room.room_id)
    async with connected(database_url) as app, pool_of(database_url) as pool:
        await begun(pool, [events])
        await app.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
        await pool.expire_connections()
        rig = Rig(client, pool, "one")
        async with rig.running():
            async with app.transaction():
                await app.execute("UPDATE active_rooms SET duration_seconds = 77 WHERE room_id = $1", room_id)
                await publish(client, events)
                await waits_for_a_lock(app)
            await written(pool, events[-1])
            await all_is_well(client, rig, "conflict")


async def begun(pool: Pool, calls: list[list[Event]]) -> None:
    """Write the first version of each room."""
    database = Database(pool, create_users=True)
    await database.write(fold(change_of(data) for events in calls for data in encoded(events[:1])))


async def waits_for_a_lock(app: Connection) -> None:
    """Wait until a session of the worker hangs on a lock of somebody else."""

    async def waiting() -> bool:
        # In a transaction the view is looked at once, unless told otherwise.
        await app.execute("SELECT pg_stat_clear_snapshot()")
        return bool(
            await app.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name = 'keepline-persister' AND datname = current_database()"
            )
        )

    await eventually(waiting, what="the worker waits for a lock")

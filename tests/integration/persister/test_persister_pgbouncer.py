"""A real PgBouncer in transaction mode before Postgres: sessions are shared, so nothing may be left in them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from keepline.cli.local.postgres import Postgres
from keepline.ops import postgres
from keepline.ops.postgres import Pool
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.attempts import Attempts, encode_attempts
from keepline.room.referrals import Referral, encode_referral
from persister.migrate import check, migrate
from persister.migration_files import MigrationError, migrations_folder, read_migrations
from signal_node.rooms.archive import Archive
from tests.helpers import pgbouncer
from tests.helpers.pgbouncer import PgBouncer, pgbouncer_before
from tests.integration.persister.persister_rig import (
    PARTITIONS,
    Rig,
    all_acknowledged,
    dead_letters,
    publish,
    written,
)
from tests.unit.persister.calls import call

pytestmark = pgbouncer.missing

FILES = read_migrations(migrations_folder())
NAMES = [migration.name for migration in FILES]


@pytest.fixture
async def bouncer(shared_postgres: Postgres) -> AsyncIterator[PgBouncer]:
    async with pgbouncer_before(shared_postgres, pool_size=2) as server:
        yield server


@pytest.fixture
async def pooled_url(bouncer: PgBouncer, database_url: str) -> str:
    """The migrated database of this test, through the pooler."""
    return bouncer.url_of(database_url.rpartition("/")[2])


async def pools(stack: AsyncExitStack, url: str, count: int) -> list[Pool]:
    opened = []
    for number in range(count):
        pool = await postgres.create_pool(url, application=f"tests-{number}")
        stack.push_async_callback(pool.close)
        opened.append(pool)
    return opened


async def test_persisters_that_share_sessions_write_what_was_meant(
    client: Client, pool: Pool, pooled_url: str
) -> None:
    """They ran each other's statements: referrals were deleted as rate limits, good events were buried."""
    target, creator = uuid.uuid4(), uuid.uuid4()
    await pool.execute("INSERT INTO users SELECT unnest($1::uuid[])", [target, creator])
    calls = [call(lines=6) for _ in range(20)]
    referrals = [Referral(f"code-{n}", target, creator, None, None, 1_800_000_000_000) for n in range(200)]
    attempts = [Attempts(f"192.0.2.{n}", 3, 1, 2, 4_000_000_000_000) for n in range(100)]
    async with AsyncExitStack() as stack:
        rigs = [Rig(client, pool, f"w{n}") for n, pool in enumerate(await pools(stack, pooled_url, 3))]
        for rig in rigs:
            await stack.enter_async_context(rig.running())
        for number, events in enumerate(calls):
            await publish(client, events)
            for event in [encode_referral(r) for r in referrals[number * 10 : number * 10 + 10]]:
                await client.xadd(keys.events(number % PARTITIONS), {"event": event})
            for event in [encode_attempts(a) for a in attempts[number * 5 : number * 5 + 5]]:
                await client.xadd(keys.events((number + 1) % PARTITIONS), {"event": event})
        for events in calls:
            await written(pool, events[-1])
        await all_acknowledged(client)
    assert await dead_letters(client) == []
    assert await pool.fetchval("SELECT count(*) FROM referral_mappings") == 200
    assert await pool.fetchval("SELECT count(*) FROM rate_limits") == 100
    assert await pool.fetchval("SELECT count(*) FROM chat_history") == 40


async def test_the_pooler_is_found_out_by_itself(pooled_url: str, database_url: str) -> None:
    for url, pooled in ((pooled_url, True), (database_url, False), (f"{pooled_url}?pgbouncer=true", True)):
        pool = await postgres.create_pool(url, application="tests")
        try:
            assert await pool.fetchval("SELECT 1") == 1
            assert pool.connector.pooled is pooled
        finally:
            await pool.close()


async def test_nothing_is_left_in_a_session(bouncer: PgBouncer, pooled_url: str, database_url: str) -> None:
    """Neither settings, nor statements, nor locks: the next one to get it may be the app."""
    pool = await postgres.create_pool(f"{pooled_url}?schema=public", application="tests")
    try:
        await asyncio.gather(*(pool.fetch("SELECT $1::jsonb, pg_sleep(0.01)", {"n": n}) for n in range(20)))
    finally:
        await pool.close()
    app = await asyncpg.connect(pooled_url, statement_cache_size=0)
    try:
        async with app.transaction():
            assert await app.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
            assert await app.fetchval("SHOW statement_timeout") == "0"
            assert await app.fetchval("SHOW search_path") == '"$user", public'
    finally:
        await app.close()


async def test_a_node_reads_rooms_through_it(client: Client, pool: Pool, pooled_url: str) -> None:
    events = call(lines=2, end=False)
    async with AsyncExitStack() as stack:
        pooled, other = await pools(stack, pooled_url, 2)
        async with Rig(client, pooled, "one").running():
            await publish(client, events)
            await written(pool, events[-1])
        archives = [Archive(pooled), Archive(other)]
        loaded = await asyncio.gather(*(archive.load(events[0].room.room_id) for archive in archives * 10))
    assert {one.room.version for one in loaded if one is not None} == {events[-1].room.version}


async def test_migrations_run_through_it_and_leave_no_lock_behind(
    bouncer: PgBouncer, shared_postgres: Postgres, empty_database_url: str
) -> None:
    url = bouncer.url_of(empty_database_url.rpartition("/")[2])
    said: list[str] = []
    assert await migrate(url, FILES, said.append) == NAMES
    assert [text for text in said if not text.startswith("applied")] == []
    assert await check(url, FILES, said.append) == []
    assert await migrate(url, FILES, said.append) == []
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    finally:
        await connection.close()


async def test_a_lock_that_an_older_release_left_behind_is_said_with_its_remedy(
    bouncer: PgBouncer, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persister.migrate._PATIENCE_SECONDS", 0.5)
    url = bouncer.url_of(empty_database_url.rpartition("/")[2])
    old = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await old.execute("SELECT pg_advisory_lock(7738703068235656805)")
        await old.execute("BEGIN")  # so that the session with the lock is not given to the migration
        connection = await asyncpg.connect(empty_database_url)
        try:
            with pytest.raises(
                MigrationError, match=r"another migration is running.*pg_terminate_backend\((\d+)\)"
            ):
                await migrate(url, FILES, lambda _: None)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        finally:
            await connection.close()
        assert await migrate(url, FILES, lambda _: None) == NAMES
    finally:
        old.terminate()

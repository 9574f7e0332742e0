"""What apps' databases look like: each is taken as it is, or refused in words with the statement that mends it."""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from keepline.ops import postgres
from keepline.ops.postgres import Connection
from persister.database import Database
from persister.fold import change_of, fold
from persister.migrate import check, migrate
from persister.migration_files import MigrationError, migrations_folder, read_migrations
from tests.migration.test_migrations import run_command
from tests.unit.persister.calls import call, encoded

FILES = read_migrations(migrations_folder())
NAMES = [migration.name for migration in FILES]


def ignore(_: str) -> None:
    """Take what the runner says."""


@pytest_asyncio.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    opened: Connection = await asyncpg.connect(empty_database_url, timeout=5)
    yield opened
    await opened.close(timeout=5)


async def write(url: str, *batches: list[bytes]) -> None:
    pool = await postgres.create_pool(url, application="tests")
    try:
        for batch in batches:
            await Database(pool, create_users=True).write(fold(map(change_of, batch)))
    finally:
        await pool.close()


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL DEFAULT false)",
        "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)",
    ],
    ids=["golang-migrate", "Rails"],
)
async def test_a_record_of_the_apps_own_migrations_stays_the_apps(
    empty_database_url: str, connection: Connection, theirs: str
) -> None:
    await connection.execute(theirs)
    await connection.execute("INSERT INTO schema_migrations (version) VALUES (7)")
    assert await migrate(empty_database_url, FILES, ignore) == NAMES
    assert await check(empty_database_url, FILES, ignore) == []
    assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == 1


async def test_the_record_of_an_earlier_release_is_adopted(
    empty_database_url: str, connection: Connection
) -> None:
    await migrate(empty_database_url, FILES, ignore)
    await connection.execute("ALTER TABLE keepline_migrations RENAME TO schema_migrations")
    assert await check(empty_database_url, FILES, ignore) == []
    assert await migrate(empty_database_url, FILES, ignore) == []
    assert await connection.fetchval("SELECT count(*) FROM keepline_migrations") == len(FILES)


async def test_times_without_a_zone_are_utc_wherever_the_database_is(
    empty_database_url: str, connection: Connection
) -> None:
    """They were 5 h 30 min off in Asia/Kolkata."""
    name = urlsplit(empty_database_url).path.lstrip("/")
    await connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    await connection.execute(
        "CREATE TABLE users (user_id UUID PRIMARY KEY);"
        "CREATE TABLE chat_history (user_id UUID, started_at TIMESTAMP, ended_at TIMESTAMP)"
    )
    await migrate(empty_database_url, FILES, ignore)
    events = call(lines=6)
    await write(empty_database_url, encoded(events))
    ended_at = await connection.fetchval("SELECT DISTINCT ended_at FROM chat_history")
    room = events[-1].room
    assert room.ended_at is not None
    assert ended_at == datetime.fromtimestamp(room.ended_at / 1000, UTC).replace(tzinfo=None)


PARTITIONED = """
CREATE TABLE users (user_id UUID PRIMARY KEY);
CREATE TABLE chat_history (
    user_id UUID, room_id UUID, started_at TIMESTAMPTZ NOT NULL, mood TEXT
) PARTITION BY RANGE (started_at);
CREATE TABLE early PARTITION OF chat_history FOR VALUES FROM (MINVALUE) TO ('2027-01-01');
CREATE TABLE late PARTITION OF chat_history FOR VALUES FROM ('2027-01-01') TO (MAXVALUE);
CREATE TABLE reports (report_id UUID DEFAULT gen_random_uuid(), created_at DATE DEFAULT '2026-01-01')
    PARTITION BY RANGE (created_at);
CREATE TABLE reports_all PARTITION OF reports DEFAULT;
INSERT INTO chat_history (user_id, started_at) SELECT gen_random_uuid(), '2026-01-01' FROM generate_series(1, 3);
"""


async def test_a_partitioned_history_and_partitioned_reports(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(PARTITIONED)
    assert await migrate(empty_database_url, FILES, ignore) == NAMES
    await connection.execute("DELETE FROM keepline_migrations")
    assert await migrate(empty_database_url, FILES, ignore) == NAMES
    invalid = await connection.fetch("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")
    assert invalid == []

    events = call(lines=6)
    await write(empty_database_url, encoded(events), encoded(events), encoded(events[-1:]))
    assert await connection.fetchval("SELECT count(*) FROM chat_history WHERE room_version IS NOT NULL") == 2
    await connection.execute(
        "UPDATE chat_history SET room_version = 1, duration_seconds = 0 WHERE room_id IS NOT NULL"
    )
    await write(empty_database_url, encoded(events))
    assert await connection.fetchval(
        "SELECT min(duration_seconds) > 0 FROM chat_history WHERE room_id IS NOT NULL"
    )


async def test_two_writers_of_one_call_to_a_partitioned_history_write_it_once(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(PARTITIONED)
    await migrate(empty_database_url, FILES, ignore)
    calls = [call(lines=6) for _ in range(20)]
    await asyncio.gather(
        *(write(empty_database_url, *(encoded(events) for events in calls)) for _ in range(3))
    )
    assert await connection.fetchval("SELECT count(*) FROM chat_history WHERE room_version IS NOT NULL") == 40


async def test_users_in_another_schema_are_refused_with_the_statement_and_come_in_with_it(
    empty_database_url: str, connection: Connection
) -> None:
    """They silently got an empty `public.users`."""
    await connection.execute("CREATE SCHEMA auth; CREATE TABLE auth.users (user_id UUID PRIMARY KEY)")
    with pytest.raises(
        MigrationError, match=r"a table users in schema auth.*SET search_path = public, auth"
    ) as refused:
        await migrate(empty_database_url, FILES, ignore)
    assert await connection.fetchval("SELECT to_regclass('public.users')") is None
    statement = str(refused.value).partition("users: ")[2].partition(";")[0]
    await connection.execute(statement)
    try:
        assert await migrate(empty_database_url, FILES, ignore) == NAMES
        events = call(lines=6)
        await connection.execute(
            "INSERT INTO auth.users SELECT unnest($1::uuid[])",
            [uuid.UUID(side.user) for side in events[0].room.sides],
        )
        await write(empty_database_url, encoded(events))
        assert await connection.fetchval("SELECT count(*) FROM active_rooms") == 1
    finally:
        await connection.execute("ALTER ROLE CURRENT_USER RESET search_path")


async def test_tables_in_a_schema_that_the_url_names(empty_database_url: str, connection: Connection) -> None:
    await connection.execute("CREATE SCHEMA calls")
    url = f"{empty_database_url}?schema=calls"
    assert await migrate(url, FILES, ignore) == NAMES
    events = call(lines=6)
    await write(url, encoded(events))
    assert await connection.fetchval("SELECT count(*) FROM calls.chat_history") == 2
    assert await connection.fetchval("SELECT to_regclass('public.chat_history')") is None


async def test_a_role_without_rights_is_told_which_it_needs(
    empty_database_url: str, connection: Connection
) -> None:
    role = f"limited_{uuid.uuid4().hex}"
    parts = urlsplit(empty_database_url)
    url = f"postgresql://{role}:secret@{parts.hostname}:{parts.port}{parts.path}"
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        ran = await asyncio.to_thread(run_command, DATABASE_URL=url)
        assert ran.returncode == 1
        assert "Traceback" not in ran.stderr
        assert ran.stderr.count(f'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"') == 1
        await connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
        await connection.execute("CREATE TABLE chat_history (user_id UUID)")
        ran = await asyncio.to_thread(run_command, DATABASE_URL=url)
        assert ran.returncode == 1
        assert f'ALTER TABLE chat_history OWNER TO "{role}"' in ran.stderr
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_hint_of_a_migration_stands_once(empty_database_url: str, connection: Connection) -> None:
    await connection.execute("CREATE SCHEMA app; CREATE TABLE app.users (user_id UUID PRIMARY KEY)")
    with pytest.raises(MigrationError) as refused:
        await migrate(empty_database_url, FILES, ignore)
    assert str(refused.value).count("If it has the app's users: ALTER ROLE") == 1


@pytest.mark.parametrize(
    ("url", "words", "seconds"),
    [
        ("postgresql://u:secret@nowhere.invalid/app", "nowhere.invalid has no address", 15),
        ("postgresql://u:secret@127.0.0.1:1/app?sslmod=require", "did you mean sslmode?", 5),
        ("postgresql://u:secret@127.0.0.1/app?channel_binding=require", "leave it out", 5),
    ],
)
async def test_a_url_that_leads_nowhere_is_said_within_seconds(url: str, words: str, seconds: float) -> None:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "persister.migrate", env={"DATABASE_URL": url}, stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode in (1, 2)
    assert words in errors.decode()
    assert "secret" not in errors.decode()
    assert time.monotonic() - started < 45, f"takes about {seconds} s on a quiet machine"

"""Migrations of a database that is in use: where they lead, whom they hold up, and several of them at once."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest
import pytest_asyncio

from keepline.ops.postgres import Connection, set_codecs
from persister.migrate import migrate
from persister.migration_files import MigrationError, migrations_folder, read_migrations

FILES = read_migrations(migrations_folder())
NAMES = [migration.name for migration in FILES]
ROWS = 50_000
LONGEST_WAIT_SECONDS = 1.0
LOCK_SECONDS = 5.0
"""After so long a migration gives up waiting for a lock."""

APP_TABLES = f"""
CREATE TABLE users (user_id UUID PRIMARY KEY, email TEXT NOT NULL, plan TEXT DEFAULT 'free');
CREATE TABLE chat_history (
    history_id BIGSERIAL PRIMARY KEY, user_id UUID REFERENCES users, started_at TIMESTAMPTZ, mood TEXT);
CREATE TABLE reports (
    report_id BIGSERIAL PRIMARY KEY, reporter_id UUID REFERENCES users, reason VARCHAR(200), details TEXT);
INSERT INTO users (user_id, email) SELECT gen_random_uuid(), 'user ' || n FROM generate_series(1, 1000) AS n;
INSERT INTO chat_history (user_id, started_at, mood)
SELECT user_id, now(), 'fine' FROM users, generate_series(1, {ROWS // 1000});
INSERT INTO reports (reporter_id, reason, details)
SELECT user_id, 'rude', 'very' FROM users, generate_series(1, {ROWS // 1000});
"""
SHARED = ("users", "chat_history", "reports")

# What each kind of thing is called and says, table by table; not in which order columns came.
SCHEMA = """
SELECT table_name AS "table", format('column %s %s(%s) %s %s', column_name, data_type, character_maximum_length,
    is_nullable, column_default) AS line
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT conrelid::regclass::text, format('%s %s %s', conname, pg_get_constraintdef(oid), convalidated)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT i.tablename, format('%s %s', i.indexdef, x.indisvalid) FROM pg_indexes i
    JOIN pg_index x ON x.indexrelid = format('%I.%I', i.schemaname, i.indexname)::regclass
WHERE i.schemaname = 'public'
UNION ALL SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""

# The columns of shared tables that the cluster writes.
RELIED_ON = {
    "users": {"user_id"},
    "chat_history": {
        *("user_id", "partner_id", "room_id", "chat_mode", "started_at", "ended_at", "duration_seconds"),
        "room_version",
    },
    "reports": {
        *("reporter_id", "reported_id", "room_id", "reason", "reported_at", "session_data", "keepline_id"),
    },
}


@pytest_asyncio.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    opened: Connection = await asyncpg.connect(empty_database_url, timeout=5)
    await set_codecs(opened)
    yield opened
    await opened.close(timeout=5)


def ignore(_: str) -> None:
    """Take what the runner says."""


async def schema(connection: Connection, *, without: tuple[str, ...] = ()) -> set[tuple[str, str]]:
    """All that makes up the schema, but for the record of migrations and for some tables."""
    rows = await connection.fetch(SCHEMA)
    left_out = {"keepline_migrations", *without}
    return {(row["table"], row["line"]) for row in rows if row["table"] not in left_out}


async def columns(connection: Connection, table: str) -> dict[str, str]:
    rows = await connection.fetch(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1", table
    )
    return {row["column_name"]: row["data_type"] for row in rows}


async def fresh_schema(
    connection: Connection, url: str, *, without: tuple[str, ...] = ()
) -> set[tuple[str, str]]:
    """The schema of a database that had nothing; it is emptied again."""
    await migrate(url, FILES, ignore)
    found = await schema(connection, without=without)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return found


@pytest.mark.parametrize("release", range(1, len(FILES)), ids=NAMES[:-1])
async def test_from_every_release_on_a_database_ends_as_a_fresh_one(
    empty_database_url: str, connection: Connection, release: int
) -> None:
    fresh = await fresh_schema(connection, empty_database_url)
    await migrate(empty_database_url, FILES[:release], ignore)
    await connection.execute(
        "INSERT INTO users (user_id) SELECT gen_random_uuid() FROM generate_series(1, 100)"
    )
    await connection.execute("INSERT INTO chat_history (user_id) SELECT user_id FROM users")
    await connection.execute("INSERT INTO reports (reason) SELECT 'rude' FROM users")
    assert await migrate(empty_database_url, FILES, ignore) == NAMES[release:]
    assert await schema(connection) == fresh
    assert await connection.fetchval("SELECT count(*) FROM chat_history") == 100


async def test_with_an_apps_own_tables_all_that_is_ours_is_as_in_a_fresh_one(
    empty_database_url: str, connection: Connection
) -> None:
    fresh = await fresh_schema(connection, empty_database_url, without=SHARED)
    await connection.execute(APP_TABLES)
    before = {table: await columns(connection, table) for table in SHARED}
    await migrate(empty_database_url, FILES, ignore)
    assert await schema(connection, without=SHARED) == fresh
    for table, names in RELIED_ON.items():
        found = await columns(connection, table)
        assert found.keys() == before[table].keys() | names
        assert found | before[table] == found, "the app's columns are as they were"
    assert await connection.fetchval("SELECT count(*) FROM reports WHERE details = 'very'") == ROWS
    for index in ("chat_history_room_id_user_id_idx", "reports_keepline_id_idx"):
        assert await connection.fetchval(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = $1::regclass", index
        )


@dataclass(slots=True)
class Writer:
    """The app meanwhile: writes one row after the other to a table."""

    url: str
    statement: str
    waits: list[float] = field(default_factory=list)

    async def work(self, stop: asyncio.Event) -> None:
        connection: Connection = await asyncpg.connect(self.url, timeout=5)
        try:
            while not stop.is_set():
                began = time.monotonic()
                await connection.execute(self.statement)
                self.waits.append(time.monotonic() - began)
        finally:
            await connection.close(timeout=5)


async def test_writers_of_the_app_wait_no_longer_than_a_moment(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(APP_TABLES)
    one = "(SELECT user_id FROM users LIMIT 1)"
    writers = [
        Writer(empty_database_url, f"INSERT INTO chat_history (user_id, mood) VALUES ({one}, 'new')"),
        Writer(empty_database_url, f"INSERT INTO reports (reporter_id, details) VALUES ({one}, 'new')"),
        Writer(empty_database_url, "INSERT INTO users (user_id, email) VALUES (gen_random_uuid(), 'new')"),
        Writer(empty_database_url, "UPDATE users SET plan = 'paid' WHERE email = 'user 7'"),
    ]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as app:
        for writer in writers:
            app.create_task(writer.work(stop))
        assert await migrate(empty_database_url, FILES, ignore) == NAMES
        stop.set()
    for writer in writers:
        assert len(writer.waits) > 20, writer.statement
        assert max(writer.waits) < LONGEST_WAIT_SECONDS, writer.statement
    written = await connection.fetchval("SELECT count(*) FROM chat_history WHERE mood = 'new'")
    assert written == len(writers[0].waits)


async def test_a_long_transaction_of_the_app_holds_up_the_migration_and_nobody_else_for_long(
    empty_database_url: str, connection: Connection
) -> None:
    """Who waits behind a waiting migration waits until it gives up: `lock_timeout`, then there is a pause."""
    await connection.execute(APP_TABLES)
    other: Connection = await asyncpg.connect(empty_database_url, timeout=5)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE reports SET details = 'read' WHERE report_id = 1")
        gave_up = asyncio.Event()

        def listen(said: str) -> None:
            if "trying again" in said:
                gave_up.set()

        running = asyncio.create_task(migrate(empty_database_url, FILES, listen))
        await asyncio.wait_for(gave_up.wait(), 15)
        await asyncio.wait_for(
            other.execute("INSERT INTO reports (details) VALUES ('meanwhile')"), LOCK_SECONDS + 2
        )
        await transaction.commit()
        assert await asyncio.wait_for(running, 20) == NAMES
    finally:
        await other.close(timeout=5)


async def test_runners_of_several_containers_at_once_all_end_well(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(APP_TABLES)
    command = (sys.executable, "-m", "persister.migrate")
    runners = [
        await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "DATABASE_URL": empty_database_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(60):
        said = [await runner.communicate() for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0, 0], said
    applied = [line for out, _ in said for line in out.decode().splitlines() if line.startswith("applied ")]
    assert applied == [f"applied {name}" for name in NAMES]


async def test_the_operator_is_told_what_the_reports_of_the_app_want(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(
        "CREATE TABLE reports (n SERIAL, room_id UUID NOT NULL, severity INTEGER NOT NULL)"
    )
    said: list[str] = []
    await migrate(empty_database_url, FILES, said.append)
    (warning,) = [text for text in said if text.startswith("warning:")]
    assert "reports needs a value in severity," in warning


async def test_reports_that_can_never_take_ours_are_refused_in_words(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute("CREATE TABLE reports (reported_id BIGINT, reason TEXT)")
    with pytest.raises(MigrationError, match=r"reports has columns of another type.*reported_id int8"):
        await migrate(empty_database_url, FILES, ignore)


async def test_an_index_of_reports_whose_build_was_interrupted_is_built_anew(
    empty_database_url: str, connection: Connection
) -> None:
    await migrate(empty_database_url, FILES, ignore)
    index = "'reports_keepline_id_idx'::regclass"
    await connection.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {index}")
    await connection.execute("DELETE FROM keepline_migrations WHERE filename LIKE '006%'")
    assert await migrate(empty_database_url, FILES, ignore) == NAMES[5:6]
    assert await connection.fetchval(f"SELECT indisvalid FROM pg_index WHERE indexrelid = {index}")

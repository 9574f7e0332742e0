"""The migrations on an empty database, on an app's own tables, twice, by psql and by the runner."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from keepline.ops.postgres import Connection, set_codecs
from persister.migrate import check, main, migrate, pending
from persister.migration_files import MigrationError, migrations_folder, read_migrations

FILES = read_migrations(migrations_folder())
NAMES = [migration.name for migration in FILES]

APP_TABLES = """
CREATE TABLE users (user_id UUID PRIMARY KEY, email TEXT NOT NULL, plan TEXT DEFAULT 'free');
CREATE TABLE chat_history (
    history_id SERIAL PRIMARY KEY, user_id UUID REFERENCES users, started_at TIMESTAMPTZ, mood TEXT);
CREATE TABLE reports (report_id SERIAL PRIMARY KEY, reporter UUID, details TEXT);
INSERT INTO users (user_id, email) SELECT gen_random_uuid(), 'user ' || n FROM generate_series(1, 500) AS n;
INSERT INTO chat_history (user_id, mood) SELECT user_id, 'fine' FROM users;
INSERT INTO reports (reporter, details) SELECT user_id, 'rude' FROM users;
"""


@pytest_asyncio.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    opened: Connection = await asyncpg.connect(empty_database_url, timeout=5)
    await set_codecs(opened)
    yield opened
    await opened.close(timeout=5)


def ignore(_: str) -> None:
    """Take what the runner says."""


async def apply_with_psql(url: str) -> None:
    for file in sorted(migrations_folder().glob("*.sql")):
        command = ["psql", url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr


async def apply_with_runner(url: str) -> None:
    await migrate(url, FILES, ignore)


WAYS = [
    pytest.param(apply_with_runner, id="runner"),
    pytest.param(
        apply_with_psql,
        id="psql",
        marks=pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed"),
    ),
]


async def describe(connection: Connection) -> list[str]:
    """Name every column, constraint, index and trigger: what a second run must not change."""
    rows = await connection.fetch(
        """
        SELECT format('%s.%s %s %s', table_name, column_name, data_type, column_default) AS line
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'keepline_migrations'
        UNION ALL SELECT conrelid::regclass || ' ' || conname || convalidated FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'keepline_migrations'
        UNION ALL SELECT indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename <> 'keepline_migrations'
        UNION ALL SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal
        ORDER BY 1
        """
    )
    return [row["line"] for row in rows]


@pytest.mark.parametrize("apply", WAYS)
async def test_an_empty_database_gets_every_table_and_a_second_run_changes_nothing(
    empty_database_url: str, connection: Connection, apply: Callable[[str], Awaitable[None]]
) -> None:
    await apply(empty_database_url)
    first = await describe(connection)
    await apply(empty_database_url)
    assert await describe(connection) == first
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in tables} - {"keepline_migrations"} == {
        "users",
        "chat_history",
        "reports",
        "active_rooms",
        "removed_rooms",
        "referral_mappings",
        "text_room_activity",
        "rate_limits",
    }


@pytest.mark.parametrize("apply", WAYS)
async def test_tables_of_the_app_keep_their_columns_and_rows(
    empty_database_url: str, connection: Connection, apply: Callable[[str], Awaitable[None]]
) -> None:
    await connection.execute(APP_TABLES)
    await apply(empty_database_url)
    await apply(empty_database_url)
    assert await connection.fetchval("SELECT count(*) FROM users WHERE plan = 'free'") == 500
    assert await connection.fetchval("SELECT count(*) FROM reports WHERE session_data IS NULL") == 500
    assert await connection.fetchval("SELECT count(*) FROM chat_history WHERE chat_mode = 'video'") == 500
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE chat_history SET chat_mode = 'smoke'")


@pytest.mark.parametrize("apply", WAYS)
async def test_calls_the_app_wrote_before_are_in_nobodys_way(
    empty_database_url: str, connection: Connection, apply: Callable[[str], Awaitable[None]]
) -> None:
    """Rows without a room, and several of one user for one room."""
    await connection.execute(
        """
        CREATE TABLE users (user_id UUID PRIMARY KEY);
        CREATE TABLE chat_history (user_id UUID, room_id UUID, ended_at TIMESTAMP);
        INSERT INTO users SELECT gen_random_uuid() FROM generate_series(1, 2);
        INSERT INTO chat_history (user_id) SELECT user_id FROM users, generate_series(1, 3);
        INSERT INTO chat_history (user_id, room_id)
        SELECT user_id, '00000000-0000-4000-8000-000000000001' FROM users, generate_series(1, 3);
        """
    )
    await apply(empty_database_url)
    ours = (
        "INSERT INTO chat_history (user_id, room_id, room_version)"
        " SELECT user_id, '00000000-0000-4000-8000-000000000001', 7 FROM users"
    )
    await connection.execute(ours)
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(ours)
    assert await connection.fetchval("SELECT count(*) FROM chat_history") == 14


async def test_an_index_whose_build_was_interrupted_is_built_anew(
    empty_database_url: str, connection: Connection
) -> None:
    await apply_with_runner(empty_database_url)
    index = "'chat_history_room_id_user_id_idx'::regclass"
    await connection.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {index}")
    await connection.execute("DELETE FROM keepline_migrations WHERE filename LIKE '004%'")
    await apply_with_runner(empty_database_url)
    assert await connection.fetchval(f"SELECT indisvalid FROM pg_index WHERE indexrelid = {index}")


async def test_the_operator_is_told_what_the_history_of_the_app_wants(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(
        "CREATE TABLE chat_history (n SERIAL, user_id UUID NOT NULL, mood TEXT NOT NULL, tone TEXT NOT NULL)"
    )
    said: list[str] = []
    await migrate(empty_database_url, FILES, said.append)
    (warning,) = [text for text in said if text.startswith("warning:")]
    assert "needs a value in mood, tone," in warning


async def test_a_history_that_can_never_take_a_call_is_refused_in_words(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute("CREATE TABLE chat_history (user_id UUID, room_id INTEGER)")
    with pytest.raises(MigrationError, match=r"chat_history has columns of another type.*room_id int4"):
        await apply_with_runner(empty_database_url)


async def test_psql_after_the_runner_and_the_runner_after_psql_agree(
    empty_database_url: str, connection: Connection
) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    await apply_with_psql(empty_database_url)
    by_psql = await describe(connection)
    await apply_with_runner(empty_database_url)
    assert await describe(connection) == by_psql


async def test_every_foreign_key_has_an_index(empty_database_url: str, connection: Connection) -> None:
    await apply_with_runner(empty_database_url)
    bare = await connection.fetch(
        """
        SELECT conrelid::regclass AS "table", conname FROM pg_constraint c
        WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])
        """
    )
    assert bare == []


async def test_the_row_says_when_it_was_last_changed(empty_database_url: str, connection: Connection) -> None:
    await apply_with_runner(empty_database_url)
    await connection.execute(
        """
        INSERT INTO users (user_id) VALUES (gen_random_uuid()), (gen_random_uuid());
        INSERT INTO active_rooms (room_id, user_1, user_2, duration_seconds, updated_at)
        SELECT gen_random_uuid(), min(user_id::text)::uuid, max(user_id::text)::uuid, 60, '2020-01-01'
        FROM users;
        UPDATE active_rooms SET version = 2;
        """
    )
    assert await connection.fetchval("SELECT updated_at > now() - interval '1 minute' FROM active_rooms")


async def test_users_without_a_usable_key_are_refused_in_words(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute("CREATE TABLE users (user_id TEXT PRIMARY KEY)")
    with pytest.raises(MigrationError, match=r"table users: user_id is of type text"):
        await apply_with_runner(empty_database_url)


def line(seq: int, text: str = "") -> dict[str, object]:
    return {"seq": seq, "from": "u", "text": text, "at": seq}


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        ([], [], []),
        ([], [2, 1], [1, 2]),
        ([1, 2], [], [1, 2]),
        ([1, 2], [3, 4], [1, 2, 3, 4]),
        ([3, 4], [1, 2], [1, 2, 3, 4]),
        ([1, 3], [2, 3], [1, 2, 3]),
        ([1, 2], [2, 2, 3], [1, 2, 3]),
        (list(range(1, 1001)), [1001, 1002], list(range(3, 1003))),
        (list(range(2, 1002)), [1], list(range(2, 1002))),
    ],
)
async def test_messages_are_merged_by_number(
    empty_database_url: str, connection: Connection, a: list[int], b: list[int], merged: list[int]
) -> None:
    await apply_with_runner(empty_database_url)
    result = await connection.fetchval(
        "SELECT keepline_merge_messages($1::jsonb, $2::jsonb)", [line(n) for n in a], [line(n) for n in b]
    )
    assert [message["seq"] for message in result] == merged


async def test_of_two_messages_with_one_number_the_stored_one_stays(
    empty_database_url: str, connection: Connection
) -> None:
    await apply_with_runner(empty_database_url)
    result = await connection.fetchval(
        "SELECT keepline_merge_messages($1::jsonb, $2::jsonb)", [line(1, "stored")], [line(1, "other")]
    )
    assert result == [line(1, "stored")]


async def test_check_names_what_would_run_and_changes_nothing(
    empty_database_url: str, connection: Connection
) -> None:
    before = await describe(connection)
    assert await check(empty_database_url, FILES, ignore) == NAMES
    assert await describe(connection) == before
    assert await migrate(empty_database_url, FILES, ignore) == NAMES
    assert await check(empty_database_url, FILES, ignore) == []
    assert await migrate(empty_database_url, FILES, ignore) == []


async def test_a_file_that_changed_runs_again(
    empty_database_url: str, connection: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "001.sql"
    file.write_text("CREATE TABLE IF NOT EXISTS one ();")
    await migrate(empty_database_url, read_migrations(tmp_path), ignore)
    file.write_text("CREATE TABLE IF NOT EXISTS two ();")
    assert [m.name for m in await pending(connection, read_migrations(tmp_path))] == ["001.sql"]
    await migrate(empty_database_url, read_migrations(tmp_path), ignore)
    assert await connection.fetchval("SELECT to_regclass('two')") == "two"


async def test_two_runners_at_once_both_end_well(empty_database_url: str) -> None:
    done = await asyncio.gather(
        migrate(empty_database_url, FILES, ignore), migrate(empty_database_url, FILES, ignore)
    )
    assert sorted(done, key=len) == [[], NAMES]


async def test_a_lock_of_the_app_is_waited_for(
    empty_database_url: str, connection: Connection, tmp_path: Path
) -> None:
    await connection.execute("CREATE TABLE busy (n INTEGER)")
    (tmp_path / "001.sql").write_text(
        "BEGIN; SET LOCAL lock_timeout = '50ms'; ALTER TABLE busy ADD COLUMN m INTEGER; COMMIT;"
    )
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO busy VALUES (1)")
    refused = asyncio.Event()
    running = asyncio.create_task(
        migrate(empty_database_url, read_migrations(tmp_path), lambda _: refused.set())
    )
    await asyncio.wait_for(refused.wait(), 10)
    await transaction.commit()
    assert await asyncio.wait_for(running, 10) == ["001.sql"]


def run_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | environ
    command = [sys.executable, "-m", "persister.migrate", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_migrates_and_checks_by_its_exit_code(empty_database_url: str) -> None:
    before = await asyncio.to_thread(run_command, "--check", DATABASE_URL=empty_database_url)
    assert (before.returncode, before.stdout.splitlines()) == (1, [f"would apply {name}" for name in NAMES])
    ran = await asyncio.to_thread(run_command, DATABASE_URL=empty_database_url)
    assert (ran.returncode, ran.stdout.splitlines()) == (0, [f"applied {name}" for name in NAMES])
    after = await asyncio.to_thread(run_command, "--check", DATABASE_URL=empty_database_url)
    assert (after.returncode, after.stdout, after.stderr) == (0, "up to date\n", "")


def test_the_command_needs_a_database_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert "DATABASE_URL" in capsys.readouterr().err


async def test_a_refused_login_is_told_at_once(empty_database_url: str) -> None:
    head, _, host = empty_database_url.rpartition("@")
    wrong = f"{head.rpartition(':')[0]}:wrong@{host}"
    with pytest.raises(MigrationError, match="cannot connect"):
        await asyncio.wait_for(migrate(wrong, FILES, ignore), 10)


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no \\*\\.sql files"):
        read_migrations(tmp_path)

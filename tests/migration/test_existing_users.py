"""Apps that have users already: their table is referred to as it is, or refused with the statement that mends it."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from keepline.ops import postgres
from keepline.ops.postgres import Connection
from keepline.ops.postgres.users_table import UsersTable, users_table, users_table_of
from persister.app_users import fitted
from persister.database import Database, RowFault
from persister.fold import change_of, fold
from persister.migrate import check, main, migrate, plan
from persister.migration_files import MigrationError, migrations_folder, read_migrations
from tests.unit.persister.calls import call, encoded

FILES = read_migrations(migrations_folder())
NAMES = [migration.name for migration in FILES]

DJANGO = "CREATE TABLE auth_user (id SERIAL PRIMARY KEY, username VARCHAR(150) NOT NULL)"
RAILS = "CREATE TABLE users (id BIGSERIAL PRIMARY KEY, email VARCHAR NOT NULL)"
RAILS_UUID = (
    "CREATE TABLE users (id UUID PRIMARY KEY DEFAULT gen_random_uuid(), email VARCHAR NOT NULL DEFAULT '')"
)
PRISMA = "CREATE TABLE \"User\" (id TEXT PRIMARY KEY, email TEXT NOT NULL DEFAULT '')"


def ignore(_: str) -> None:
    """Take what the runner says."""


@pytest_asyncio.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    opened: Connection = await asyncpg.connect(empty_database_url, timeout=5)
    yield opened
    await opened.close(timeout=5)


async def refusal(url: str, users: UsersTable | None) -> str:
    """Why a migration is refused; it has changed nothing."""
    with pytest.raises(MigrationError) as caught:
        await migrate(url, FILES, ignore, users)
    assert await check(url, FILES, ignore) == NAMES
    return str(caught.value)


def settings_in(text: str) -> UsersTable | None:
    """What a refusal says to set, the first of it."""
    name = re.findall(r"KEEPLINE_USERS_TABLE=(\S+)", text)[0]
    column = re.findall(r"KEEPLINE_USERS_COLUMN=(\S+)", text)[0]
    return users_table(name, column)


async def write_call(url: str, users: UsersTable | None, *, create_users: bool = False) -> list[uuid.UUID]:
    """Write a finished call with all that belongs to it; returns its two users."""
    batch = fold(map(change_of, encoded(call(lines=3))))
    pool = await postgres.create_pool(url, application="tests")
    try:
        await Database(pool, create_users=create_users, users=users).write(batch)
    finally:
        await pool.close()
    return batch.users


@pytest.mark.parametrize(
    ("theirs", "named", "words"),
    [
        (DJANGO, UsersTable("auth_user", "id"), "id is of type integer"),
        (RAILS, UsersTable(), "there is no column user_id"),
        (RAILS, UsersTable("users", "id"), "id is of type bigint"),
        (PRISMA, UsersTable("User", "id"), "id is of type text"),
        ("CREATE TABLE users (user_id TEXT PRIMARY KEY)", UsersTable(), "user_id is of type text"),
    ],
    ids=["Django", "Rails", "Rails, column named", "Prisma", "text"],
)
async def test_other_types_are_refused_with_a_statement_that_mends_it(
    empty_database_url: str, connection: Connection, theirs: str, named: UsersTable, words: str
) -> None:
    await connection.execute(theirs)
    text = await refusal(empty_database_url, named)
    assert words in text
    (statement,) = re.findall(r"ALTER TABLE .*?;", text)
    assert "docs/guides/existing-users.md" in text
    await connection.execute(statement)
    mended = settings_in(text)
    assert await migrate(empty_database_url, FILES, ignore, mended) == NAMES
    with pytest.raises(RowFault, match="foreign key"):
        await write_call(empty_database_url, mended)


async def test_a_key_of_another_name_is_named_in_the_refusal_and_referred_to(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(RAILS_UUID)
    text = await refusal(empty_database_url, UsersTable())
    assert "KEEPLINE_USERS_TABLE=users KEEPLINE_USERS_COLUMN=id" in text
    users = settings_in(text)
    assert await migrate(empty_database_url, FILES, ignore, users) == NAMES
    people = await write_call(empty_database_url, users, create_users=True)
    assert {row["id"] for row in await connection.fetch("SELECT id FROM users")} == set(people)
    assert await connection.fetchval("SELECT count(*) FROM active_rooms") == 1
    await connection.execute("DELETE FROM users WHERE id = $1", people[0])
    assert await connection.fetchval("SELECT count(*) FROM active_rooms") == 0, "it goes with its user"


async def test_a_table_in_another_schema_with_capitals(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute('CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."User" ("userId" UUID UNIQUE)')
    users = users_table("Shop.User", "userId")
    assert await migrate(empty_database_url, FILES, ignore, users) == NAMES
    assert len(await write_call(empty_database_url, users, create_users=True)) == 2
    assert await connection.fetchval("SELECT to_regclass('users')") is None


async def test_a_uuid_that_is_not_unique_is_refused_with_the_statement(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute("CREATE TABLE people (uid UUID)")
    text = await refusal(empty_database_url, UsersTable("people", "uid"))
    assert "uid is not unique" in text
    await connection.execute(re.findall(r"ALTER TABLE .*?;", text)[0])
    assert await migrate(empty_database_url, FILES, ignore, UsersTable("people", "uid")) == NAMES


async def test_without_a_table_rows_refer_to_none_and_any_user_may_call(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(RAILS)
    assert await migrate(empty_database_url, FILES, ignore, None) == NAMES
    await write_call(empty_database_url, None, create_users=True)
    assert await connection.fetchval("SELECT count(*) FROM active_rooms") == 1
    assert await connection.fetchval("SELECT count(*) FROM users") == 0
    targets = "SELECT DISTINCT confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    assert [row[0] for row in await connection.fetch(targets)] == ["active_rooms"]


async def test_a_table_that_is_not_there_is_refused_with_those_that_are(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(DJANGO)
    text = await refusal(empty_database_url, UsersTable("auth_users", "id"))
    assert "KEEPLINE_USERS_TABLE names auth_users, which is not there; there is public.auth_user" in text


async def test_other_settings_later_are_refused_with_the_statements_that_change_over(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute("CREATE TABLE people (uid UUID PRIMARY KEY)")
    people = UsersTable("people", "uid")
    await migrate(empty_database_url, FILES, ignore)
    for users in (people, None, people):
        with pytest.raises(MigrationError, match="Set KEEPLINE_USERS_TABLE and") as caught:
            await migrate(empty_database_url, FILES, ignore, users)
        for statement in re.findall(r"ALTER TABLE .*?;", str(caught.value)):
            await connection.execute(statement)
        assert await migrate(empty_database_url, FILES, ignore, users) == []
    await write_call(empty_database_url, people, create_users=True)
    assert await connection.fetchval("SELECT count(*) FROM people") == 2


async def test_a_plan_says_what_is_used_and_made_and_changes_nothing(
    empty_database_url: str, connection: Connection
) -> None:
    await connection.execute(RAILS_UUID + "; CREATE TABLE reports (id SERIAL PRIMARY KEY)")
    lines = await plan(empty_database_url, FILES, ignore, UsersTable("users", "id"))
    assert lines[0] == "users: the app's users(id)"
    assert "reports: there already; what is missing is added" in lines
    assert "active_rooms: will be made" in lines
    assert lines[-len(NAMES) :] == [f"would apply {name}" for name in NAMES]
    assert await connection.fetchval("SELECT to_regclass('active_rooms')") is None
    fresh = await plan(empty_database_url, FILES, ignore, None)
    assert fresh[0] == "users: no table of users: rows refer to none"


async def test_the_sql_that_would_run_can_be_run_by_hand(
    empty_database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await connection.execute(RAILS_UUID)
    for migration in FILES[:2]:
        await connection.execute(migration.fitted(UsersTable("users", "id")).sql)
    assert await connection.fetchval("SELECT to_regclass('active_rooms') IS NOT NULL")


def test_only_the_references_change() -> None:
    for migration in FILES:
        assert fitted(migration.sql, UsersTable()) == migration.sql
        named = fitted(migration.sql, UsersTable("a.b", "c"))
        assert "users (user_id)" not in named
        assert "REFERENCES" not in fitted(migration.sql, None).replace("REFERENCES active_rooms", "")
    assert '"a"."b" ("c")' in fitted(FILES[1].sql, UsersTable("a.b", "c"))
    assert "CREATE TABLE IF NOT EXISTS users" not in fitted(FILES[0].sql, None)


@pytest.mark.parametrize(
    "environ",
    [
        {"KEEPLINE_USERS_TABLE": 'users"; DROP TABLE users'},
        {"KEEPLINE_USERS_TABLE": "a.b.c"},
        {"KEEPLINE_USERS_COLUMN": "id)"[:-1] + " x"},
    ],
)
def test_names_that_are_none_are_refused(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="KEEPLINE_USERS_TABLE"):
        users_table_of(environ)
    assert main(["--check"], environ) == 2
    assert "KEEPLINE_USERS_TABLE" in capsys.readouterr().err

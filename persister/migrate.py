r"""Migrates a database to the current schema: `python -m persister.migrate [--check | --plan | --sql]`.

The files of `migrations/` are plain SQL, which can also be run with psql. Each is idempotent and has its own
transactions. This runner adds the order, a record of applied files, a lock against concurrent runners, and retries
while the app holds locks. It runs a file again if the file has changed. The text after a line `-- by itself` is a
single statement that Postgres cannot run together with others, such as CREATE INDEX CONCURRENTLY. If it ends in psql's
`\gexec`, it is a query that returns such statements.

No state outlives a transaction, so poolers such as PgBouncer work.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import asyncpg

from keepline.ops.backoff import Backoff
from keepline.ops.postgres import ERRORS, Connection, Connector, begun, in_words
from keepline.ops.postgres.users_table import UsersTable, users_table_of
from keepline.ops.secret_files import SecretFileError, read_secret_files
from persister import app_users
from persister.app_users import UnfitUsers
from persister.migration_files import Migration, MigrationError, migrations_folder, read_migrations

DEFAULT_USERS = UsersTable()
RECORD = "keepline_migrations"
_OLD_RECORD = "schema_migrations"  # many tools use this name

_LOCK = 0x6B65_6570_6C69_6E65  # "keepline": the advisory lock of the runner
_HOLDER = """SELECT pid, state LIKE 'idle%' AS idle,
        concat_ws(', ', nullif(application_name, ''), state, 'since ' || state_change::timestamptz(0)) AS what
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
# The snapshot of a stricter isolation level would block CREATE INDEX CONCURRENTLY. Not every version has every setting.
_HOLD_FOR_LONG = """SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'"""

_STATEMENT_SECONDS = 3600.0
_PATIENCE_SECONDS = 60.0
_NAME_SECONDS = 5.0
_CLOSE_SECONDS = 5.0

_DESCRIPTION = "Bring the database named by DATABASE_URL to the current schema."

T = TypeVar("T")
Say = Callable[[str], None]

_NOT_THERE = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
_BEGIN = re.compile(r"^BEGIN;$", re.MULTILINE)
_LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


async def pending(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Return the migrations that have not run in their current form. Changes nothing; needs a transaction."""
    applied = await _recorded(connection, RECORD) or await _recorded(connection, _OLD_RECORD)
    return [migration for migration in migrations if applied.get(migration.name) != migration.checksum]


async def _recorded(connection: Connection, table: str) -> dict[str, str]:
    """Read a table of applied migrations. A table of another shape under that name belongs to another tool."""
    ours = await connection.fetchval(
        "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass($1)"
        " AND attname IN ('filename', 'checksum') AND atttypid = 'text'::regtype",
        table,
    )
    rows = await connection.fetch(f"SELECT filename, checksum FROM {table}") if ours else []  # noqa: S608
    return {row["filename"]: row["checksum"] for row in rows}


async def migrate(
    url: str, migrations: Sequence[Migration], say: Say, users: UsersTable | None = DEFAULT_USERS
) -> list[str]:
    """Run the pending migrations and return their names. Raises MigrationError."""
    connector = _connector(url)
    async with (
        _connected(connector, say) as lock,
        _locked(lock, connector, say),
        _connected(connector, say) as connection,
    ):
        connection.add_log_listener(lambda _, message: say(f"{message.severity.lower()}: {message.message}"))
        runner = _Runner(connection, connector, say, users)
        todo = await runner.prepare(migrations)
        for migration in todo:
            await runner.run(migration)
            say(f"applied {migration.name}")
        return [migration.name for migration in todo]


async def plan(
    url: str, migrations: Sequence[Migration], say: Say, users: UsersTable | None = DEFAULT_USERS
) -> list[str]:
    """Say what `migrate` would do, in lines. Raises MigrationError."""
    connector = _connector(url)
    async with _connected(connector, say) as connection:
        with _failing_in_words(connector):
            async with begun(connection, connector.begin(0, 0)):
                lines = await app_users.plan(connection, users)
                todo = await pending(connection, migrations)
    return lines + ([f"would apply {migration.name}" for migration in todo] or ["up to date"])


async def check(url: str, migrations: Sequence[Migration], say: Say) -> list[str]:
    """Return the names of the migrations that `migrate` would run. Raises MigrationError."""
    return [migration.name for migration in await look(url, migrations, say)]


async def look(url: str, migrations: Sequence[Migration], say: Say) -> list[Migration]:
    """Return what `migrate` would run. Raises MigrationError."""
    connector = _connector(url)
    async with _connected(connector, say) as connection:
        with _failing_in_words(connector):
            async with begun(connection, connector.begin(0, 0)):
                return await pending(connection, migrations)


def _connector(url: str) -> Connector:
    try:
        return Connector(url, "keepline-migrate", _STATEMENT_SECONDS)
    except ValueError as error:
        raise MigrationError(f"DATABASE_URL {error}") from None


@contextmanager
def _failing_in_words(connector: Connector, what: str = "") -> Iterator[None]:
    try:
        yield
    except UnfitUsers as error:
        raise MigrationError(str(error)) from None
    except ERRORS as error:
        raise MigrationError(f"{what}{in_words(error, connector.url)}") from error


@asynccontextmanager
async def _connected(connector: Connector, say: Say) -> AsyncIterator[Connection]:
    what = "cannot connect to the database: "
    with _failing_in_words(connector, what):
        connection = await _patiently(
            connector.connect,
            _NOT_THERE,
            lambda error: say(f"{what}{in_words(error, connector.url)}; trying again"),
        )
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except ERRORS:
            connection.terminate()


@asynccontextmanager
async def _locked(connection: Connection, connector: Connector, say: Say) -> AsyncIterator[None]:
    """Hold the runner's lock, in a transaction on its own connection.

    The lock ends with the transaction, even if a pooler keeps the session. Wait for it by polling: a session that waits
    inside the server would block CREATE INDEX CONCURRENTLY, but an idle transaction does not.
    """
    with _failing_in_words(connector):
        await _patiently(
            lambda: _lock(connection, connector.begin(0, 0)),
            _LOCKED,
            lambda error: say(f"{in_words(error)}; waiting for it to finish"),
        )
    yield


async def _lock(connection: Connection, begin: str) -> None:
    await connection.execute(begin)
    await connection.execute(_HOLD_FOR_LONG)
    # A statement with parameters would leave its portal open, and with it a snapshot.
    if await connection.execute(f"SELECT WHERE pg_try_advisory_xact_lock({_LOCK})") == "SELECT 1":
        return
    holder = await connection.fetchrow(_HOLDER, _LOCK >> 32, _LOCK & 0xFFFF_FFFF)
    await connection.execute("ROLLBACK")
    text = "another migration is running"
    if holder is not None:
        text += f" in process {holder['pid']} of Postgres ({holder['what']})"
        if holder["idle"]:
            text += "; if no migration is running, a pooler kept its session. To end it:"
            text += f" SELECT pg_terminate_backend({holder['pid']})"
    raise asyncpg.LockNotAvailableError(text)


class _Runner:
    """Runs migrations on one connection."""

    def __init__(
        self, connection: Connection, connector: Connector, say: Say, users: UsersTable | None
    ) -> None:
        self._users = users
        self._connection = connection
        self._connector = connector
        self._begin = connector.begin(0, 0)
        self._say = say

    async def prepare(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Create the record of applied migrations if it is missing, and return the pending ones. Raises
        MigrationError.
        """
        with _failing_in_words(self._connector):
            if (
                not self._connector.pooled
            ):  # it would outlive this transaction in a pooler's session; then the role's limit applies
                await self._connection.execute("SET statement_timeout = 0")
            async with begun(self._connection, self._begin):
                await app_users.check_users(self._connection, self._users)
                if await self._connection.fetchval("SELECT to_regclass($1)", RECORD) is None:
                    await self._create_record({migration.name for migration in migrations})
                return await pending(self._connection, migrations)

    async def _create_record(self, names: set[str]) -> None:
        """Create the record, and import the entries of its predecessor."""
        await self._connection.execute(
            f"CREATE TABLE {RECORD} (filename TEXT PRIMARY KEY, checksum TEXT NOT NULL,"
            " applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        for name, checksum in (await _recorded(self._connection, _OLD_RECORD)).items():
            if name in names:
                await self._note(name, checksum)

    async def run(self, migration: Migration) -> None:
        """Run one migration and record it. Raises MigrationError."""
        with _failing_in_words(self._connector, f"{migration.name}: "):
            await _patiently(
                lambda: self._attempt(migration),
                _LOCKED,
                lambda error: self._say(f"{migration.name}: {error}; trying again"),
            )
            async with begun(self._connection, self._begin):
                await self._note(migration.name, migration.checksum)

    async def _attempt(self, migration: Migration) -> None:
        try:
            for command in migration.fitted(self._users).commands:
                for statement in await self._statements(command):
                    await self._connection.execute(_BEGIN.sub(f"{self._begin};", statement))
        except asyncpg.PostgresError:
            if self._connection.is_in_transaction():
                await self._connection.execute("ROLLBACK")
            raise

    async def _statements(self, command: str) -> list[str]:
        query, gexec, _ = command.rpartition("\\gexec")
        if not gexec:
            return [command]
        async with begun(self._connection, self._begin):
            return [row[0] for row in await self._connection.fetch(query)]

    async def _note(self, name: str, checksum: str) -> None:
        await self._connection.execute(
            f"INSERT INTO {RECORD} (filename, checksum) VALUES ($1, $2) ON CONFLICT (filename)"  # noqa: S608
            " DO UPDATE SET checksum = EXCLUDED.checksum, applied_at = now()",
            name,
            checksum,
        )


async def _patiently(
    attempt: Callable[[], Awaitable[T]],
    passing: tuple[type[Exception], ...],
    say: Callable[[Exception], None],
) -> T:
    """Retry while errors may be temporary and patience lasts. Prints the first failure."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(0.1, 2.0)
    started, told = loop.time(), False
    while True:
        try:
            return await attempt()
        except passing as error:
            delay = backoff.next()
            patience = _NAME_SECONDS if isinstance(error, socket.gaierror) else _PATIENCE_SECONDS
            if loop.time() + delay > started + patience:
                raise
            if not told:
                say(error)
                told = True
        await asyncio.sleep(delay)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command and return its exit code: 0 done, 1 failed or (--check) migrations pending, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m persister.migrate", description=_DESCRIPTION)
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--check", action="store_true", help="list pending migrations; exit with 1 if there are any"
    )
    one.add_argument("--plan", action="store_true", help="show the tables that would be used and created")
    one.add_argument("--sql", action="store_true", help="print the SQL that would run")
    options = parser.parse_args(arguments)
    try:
        environ = read_secret_files(environ)
        users = users_table_of(environ)
    except (SecretFileError, ValueError) as error:
        _complain(str(error))
        return 2
    url = environ.get("DATABASE_URL")
    if not url:
        _complain("DATABASE_URL: set it to the database to migrate")
        return 2
    try:
        return _carry_out(url, users, options)
    except MigrationError as error:
        _complain(str(error))
        return 1


def _carry_out(url: str, users: UsersTable | None, options: argparse.Namespace) -> int:
    migrations = read_migrations(migrations_folder())
    if options.plan:
        _say("\n".join(asyncio.run(plan(url, migrations, _complain, users))))
        return 0
    if options.sql:
        todo = asyncio.run(look(url, migrations, _complain))
        _say("\n".join(f"-- {one.name}\n{one.fitted(users).sql}" for one in todo) or "-- up to date")
        return 0
    if options.check:
        names = asyncio.run(check(url, migrations, _complain))
        _say("\n".join(f"would apply {name}" for name in names) or "up to date")
        return 1 if names else 0
    if not asyncio.run(migrate(url, migrations, _say, users)):
        _say("up to date")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())

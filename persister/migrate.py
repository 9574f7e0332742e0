"""Brings a database to the current schema: `python -m persister.migrate [--check]`.

The files of `migrations/` are plain SQL that anyone may also run with psql: each is idempotent and sets its
own transactions. This runner adds order, a record of what ran, a lock against a second runner, and patience
with locks that the app holds. A file that has changed since it ran is run again. What follows a line `-- by itself` is
one statement that Postgres refuses to run together with others, such as CREATE INDEX CONCURRENTLY.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

from keepline.ops.backoff import Backoff
from keepline.ops.postgres import CONNECT_SECONDS, Connection
from keepline.ops.secret_files import SecretFileError, read_secret_files

_LOCK = 0x6B65_6570_6C69_6E65  # "keepline": the advisory lock that one runner holds
_STATEMENT_SECONDS = 3600.0
_PATIENCE_SECONDS = 60.0

_DESCRIPTION = "Bring the database named by DATABASE_URL to the current schema."

T = TypeVar("T")
_Say = Callable[[str], None]

_NOT_THERE = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
_LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


class MigrationError(Exception):
    """The database could not be brought to the current schema; the text says at which step and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL."""

    name: str
    sql: str

    @property
    def commands(self) -> list[str]:
        """The text in the pieces that have to be sent one by one."""
        return re.split(r"^-- by itself$", self.sql, flags=re.MULTILINE)

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_folder() -> Path:
    """Return where the SQL is: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def read_migrations(folder: Path) -> list[Migration]:
    """Return the migrations of a folder in the order they run. Raises MigrationError when there are none."""
    found = [Migration(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.sql"))]
    if not found:
        raise MigrationError(f"no *.sql files in {folder}")
    return found


async def pending(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Return those that have not run, or not in their present form. Changes nothing."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return list(migrations)
    rows = await connection.fetch("SELECT filename, checksum FROM schema_migrations")
    applied = {row["filename"]: row["checksum"] for row in rows}
    return [migration for migration in migrations if applied.get(migration.name) != migration.checksum]


async def migrate(url: str, migrations: Sequence[Migration], say: _Say) -> list[str]:
    """Run what is pending and return its names. Raises MigrationError."""
    connection = await _connect(url)
    connection.add_log_listener(lambda _, message: say(f"{message.severity.lower()}: {message.message}"))
    try:
        await _take_lock(connection, say)
        await _create_record(connection)
        todo = await pending(connection, migrations)
        for migration in todo:
            await _run(connection, migration, say)
            say(f"applied {migration.name}")
        return [migration.name for migration in todo]
    finally:
        await _close(connection)


async def check(url: str, migrations: Sequence[Migration]) -> list[str]:
    """Return the names of what `migrate` would run. Raises MigrationError."""
    connection = await _connect(url)
    try:
        return [migration.name for migration in await pending(connection, migrations)]
    finally:
        await _close(connection)


async def _connect(url: str) -> Connection:
    async def connect() -> Connection:
        connection: Connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            server_settings={"application_name": "keepline-migrate", "statement_timeout": "0"},
        )
        return connection

    try:
        return await _patiently(connect, _NOT_THERE)
    except (*_NOT_THERE, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(
            f"cannot connect to the database: {str(error) or type(error).__name__}"
        ) from error


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def _take_lock(connection: Connection, say: _Say) -> None:
    """Wait by asking again: one that waits inside the server would hold up CREATE INDEX CONCURRENTLY."""
    told = False

    async def ask() -> None:
        nonlocal told
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return
        if not told:
            say("another migration is running; waiting")
            told = True
        raise asyncpg.LockNotAvailableError("another migration is still running")

    try:
        await _patiently(ask, _LOCKED)
    except asyncpg.LockNotAvailableError as error:
        raise MigrationError(str(error)) from error


async def _create_record(connection: Connection) -> None:
    await connection.execute(
        "SET client_min_messages = warning;"
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " filename TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )


async def _run(connection: Connection, migration: Migration, say: _Say) -> None:
    async def attempt() -> None:
        try:
            for command in migration.commands:
                await connection.execute(command)
        except _LOCKED as error:
            await connection.execute("ROLLBACK")
            say(f"{migration.name}: {error}; trying again")
            raise

    try:
        await _patiently(attempt, _LOCKED)
        await connection.execute(
            "INSERT INTO schema_migrations (filename, checksum) VALUES ($1, $2) ON CONFLICT (filename)"
            " DO UPDATE SET checksum = EXCLUDED.checksum, applied_at = now()",
            migration.name,
            migration.checksum,
        )
    except asyncpg.PostgresError as error:
        hint = f" ({error.hint})" if getattr(error, "hint", None) else ""
        raise MigrationError(f"{migration.name}: {error}{hint}") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{migration.name}: the connection was lost: {error}") from error


async def _patiently(attempt: Callable[[], Awaitable[T]], passing: tuple[type[Exception], ...]) -> T:
    """Try until it succeeds, as long as what fails may pass and the patience lasts."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(0.1, 2.0)
    deadline = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            return await attempt()
        except passing:
            delay = backoff.next()
            if loop.time() + delay > deadline:
                raise
        await asyncio.sleep(delay)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit code: 0 done, 1 failed or (--check) work to do, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m persister.migrate", description=_DESCRIPTION)
    parser.add_argument("--check", action="store_true", help="print what would run; exit 1 if anything would")
    options = parser.parse_args(arguments)
    try:
        url = read_secret_files(environ).get("DATABASE_URL")
    except SecretFileError as error:
        _complain(str(error))
        return 2
    if not url:
        _complain("DATABASE_URL: required, the database to migrate")
        return 2
    try:
        migrations = read_migrations(migrations_folder())
        if options.check:
            names = asyncio.run(check(url, migrations))
            _say("\n".join(f"would apply {name}" for name in names) or "up to date")
            return 1 if names else 0
        names = asyncio.run(migrate(url, migrations, _say))
    except MigrationError as error:
        _complain(str(error))
        return 1
    if not names:
        _say("up to date")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())

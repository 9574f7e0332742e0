"""Connections to Postgres, directly or through a pooler such as PgBouncer.

A pooler in transaction mode lends a server connection for one transaction, so no state may outlive one: no session
settings, no session locks, no named prepared statements. Every statement therefore runs within `Pool.transaction`,
which sets what it needs for that transaction. Named prepared statements save a round trip each, and are used if there
is no pooler; `Connector` detects that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import orjson

from keepline.ops.postgres import urls
from keepline.ops.postgres.errors import in_words

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Lent: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

ACQUIRE_SECONDS = 10.0
COMMAND_SECONDS = 30.0
LOCK_SECONDS = 5.0
"""How long a statement waits for locks of the app."""
_STATEMENTS_KEPT = 100


async def set_codecs(connection: Connection) -> None:
    """Convert `jsonb` values to Python objects on this connection."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=orjson.loads, format="text"
    )


def _encode_jsonb(value: object) -> str:
    return orjson.dumps(value).decode()


class Connector:
    """Opens connections to the database of a URL, with a timeout for commands in seconds."""

    def __init__(self, url: str, application: str, command_seconds: float) -> None:
        """Raises ValueError for an invalid URL."""
        self.url = urls.parse(url)
        self.pooled = bool(self.url.pooled)
        """Whether there is a pooler, as far as is known."""
        self._application = application
        self._command_seconds = command_seconds

    async def connect(self, *_: Any, **options: Any) -> Connection:
        """Open a connection. The library's pool passes its own options."""
        assumed = self.pooled
        connection = await self._open(assumed, **options)
        if self.url.pooled is None:
            self.pooled = await _is_pooled(connection)
            if self.pooled != assumed:
                await connection.close(timeout=self.url.connect_seconds)
                connection = await self._open(self.pooled, **options)
        return connection

    async def _open(self, pooled: bool, **options: Any) -> Connection:
        settings = {"application_name": self._application}
        if self.url.startup_options:
            settings["options"] = self.url.startup_options
        connection: Connection = await asyncpg.connect(
            self.url.url,
            timeout=self.url.connect_seconds,
            command_timeout=self._command_seconds,
            statement_cache_size=0 if pooled else _STATEMENTS_KEPT,
            server_settings=settings,
            **options,
        )
        return connection

    async def prepare(self, connection: Connection) -> None:
        """Set the codecs of a new connection, for which the library asks the server about types."""
        if not self.pooled:
            await set_codecs(connection)
            return
        async with connection.transaction():
            await set_codecs(connection)

    def begin(self, statement_seconds: float, lock_seconds: float) -> str:
        """The statement that begins a transaction, with timeouts for a statement and for its locks; 0 for none.

        Timestamps without time zone, which an app's tables may have, are UTC, whatever the database's setting is.
        """
        limit = round(statement_seconds * 1000)
        names = ", ".join(f'"{name}"' for name in self.url.search_path)
        return (
            f"BEGIN; SET LOCAL statement_timeout = {limit};"
            f" SET LOCAL lock_timeout = {round(lock_seconds * 1000)};"
            f" SET LOCAL idle_in_transaction_session_timeout = {limit}; SET LOCAL TimeZone = 'UTC'"
            + (f"; SET LOCAL search_path = {names}" if names else "")
        )


async def _is_pooled(connection: Connection) -> bool:
    """Whether a pooler answers: it gives its clients process ids that no server process has."""
    try:
        own = await connection.execute(f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}")
    except BaseException:
        connection.terminate()
        raise
    return own != "SELECT 1"


@asynccontextmanager
async def begun(connection: Connection | Lent, begin: str) -> AsyncIterator[None]:
    """Run the block in a transaction started by `begin`: committed at its end, rolled back if it raises."""
    await connection.execute(begin)
    try:
        yield
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")


class Pool:
    """Connections to one database, each opened when it is first needed.

    So a program can start, and report the problem, while Postgres is away. A command that takes longer than 30 s is
    cancelled and raises TimeoutError. The server has the same timeout, so it stops too.
    """

    def __init__(self, connector: Connector, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.connector = connector
        self._pool = pool
        self._begin = connector.begin(COMMAND_SECONDS, LOCK_SECONDS)

    def in_words(self, error: BaseException) -> str:
        """Describe an error of this database, with the fix if there is a known one."""
        return in_words(error, self.connector.url)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Lent]:
        """Lend a connection without a transaction, for `begin_on`."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            yield connection

    @asynccontextmanager
    async def begin_on(self, connection: Lent) -> AsyncIterator[None]:
        """Run the block in a transaction on a lent connection."""
        async with begun(connection, self._begin):
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Lent]:
        """Lend a connection with a transaction: committed at the end of the block, rolled back if it raises."""
        async with self.lend() as connection, self.begin_on(connection):
            yield connection

    async def execute(self, query: str, *values: object) -> str:
        """Run a statement in its own transaction, and return its status."""
        async with self.transaction() as connection:
            return await connection.execute(query, *values)

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Return the rows of a statement in its own transaction."""
        async with self.transaction() as connection:
            return await connection.fetch(query, *values)

    async def fetchrow(self, query: str, *values: object) -> asyncpg.Record | None:
        """Return the first row of a statement in its own transaction; None if there is none."""
        rows = await self.fetch(query, *values)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *values: object) -> Any:
        """Return the first value of a statement in its own transaction; None if there is none."""
        row = await self.fetchrow(query, *values)
        return None if row is None else row[0]

    async def expire_connections(self) -> None:
        """Reopen each connection before its next use."""
        await self._pool.expire_connections()

    async def close(self) -> None:
        """Close all connections when they are returned."""
        await self._pool.close()

    def terminate(self) -> None:
        """Drop all connections."""
        self._pool.terminate()


async def _leave_as_it_is(_: object) -> None:
    """Skip the round trip with which asyncpg resets a session: ours change nothing in it."""


async def create_pool(url: str, *, application: str, max_size: int = 4) -> Pool:
    """Return a pool of at most `max_size` connections. Raises ValueError for an invalid URL."""
    connector = Connector(url, application, COMMAND_SECONDS)
    pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
        min_size=0,
        max_size=min(max_size, connector.url.connection_limit or max_size),
        max_inactive_connection_lifetime=300,
        connect=connector.connect,
        init=connector.prepare,
        reset=_leave_as_it_is,
    )
    return Pool(connector, pool)

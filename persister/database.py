"""Writes batches to Postgres, one transaction each, and decides what an error means.

After `write` returns, the batch is committed. After it raises, nothing of the batch is committed, or all of it is and
only the answer was lost. Writing a batch again, or writing an older one later, does not change newer data.

Each error has one of two causes. Errors about the server itself (away, disk full, read-only, too slow) are temporary.
Errors about values are the row's fault. For every other error, such as a missing table or any error from a trigger of
the app, the persister runs the same statements again without rows. If they fail too, the operator has to fix the
tables, and the events wait. If they succeed, the rows are at fault.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from keepline.ops.postgres import ERRORS, Lent, Pool, in_words
from keepline.ops.postgres.users_table import UsersTable
from keepline.room.attempts import Attempts
from keepline.room.referrals import Referral
from keepline.room.reports import Report
from keepline.room.rows import ActivityRow, HistoryRow, RoomRow
from persister.fold import Batch

LATE_SECONDS = 1800.0
"""A room that changed longer ago than this may have been deleted from Postgres. Younger ones cannot have been."""

# Errors of the row itself, which repeat on every attempt.
_FAULTS_OF_THE_ROW = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,  # SQLSTATE class 22
    asyncpg.exceptions.ProgramLimitExceededError,
    ValueError,  # asyncpg cannot encode a value
    TypeError,
    OverflowError,
)
_PASSING_CLASSES = ("08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX")
"""SQLSTATE classes that concern the server, the session or other transactions, never a row."""

_TIMEOUTS = (
    TimeoutError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.LockNotAvailableError,
)
_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
)


class RowFault(Exception):
    """A row in the batch can never be written. The message says why."""


class NotNow(Exception):
    """The batch cannot be written for now. `cause` is the kind of reason, for the metrics."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def read_queries(text: str) -> dict[str, str]:
    """Split a file of SQL into statements by their `-- name:` lines."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (sql.strip() for sql in parts[2::2]), strict=True))


_Row = RoomRow | ActivityRow | HistoryRow | Attempts | Report | Referral

_KINDS: dict[str, type[_Row]] = {
    "upsert_rooms": RoomRow,
    "upsert_activity": ActivityRow,
    "upsert_attempts": Attempts,
    "insert_referrals": Referral,
    "insert_reports": Report,
    "insert_history": HistoryRow,
}
"""The parameters of the statements that take rows, which are one array per column."""

_PARTITIONED = {
    "insert_history": ("chat_history", ("update_partitioned_history", "insert_partitioned_history")),
    "insert_reports": ("reports", ("insert_partitioned_reports",)),
}
"""The replacements of a statement for a partitioned table."""

_REPORTS_LOCK = 0x6B65_6570_7265_7073  # "keepreps": held to write to partitioned reports

_COLUMNS = {kind: attrgetter(*kind.__match_args__) for kind in _KINDS.values()}
"""The values of a row, in the order of its statement's parameters."""

_READ_ONLY = """SELECT current_setting('transaction_read_only')::boolean
    WHERE NOT EXISTS (SELECT version FROM active_rooms LIMIT 0)"""

_IDENTITY = """SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || oid::text
    FROM pg_database WHERE datname = current_database()"""

QUERIES = read_queries((Path(__file__).parent / "queries.sql").read_text(encoding="utf-8"))

_USERS = UsersTable()


def _creates_users(users: UsersTable) -> str:
    """The statement that adds unknown users to the app's table."""
    query = QUERIES["create_users"].replace("INTO users (user_id)", f"INTO {users.table} ({users.key})")
    return query.replace("ON CONFLICT (user_id)", f"ON CONFLICT ({users.key})")


class Database:
    """The tables that the persister writes to."""

    def __init__(
        self,
        pool: Pool,
        *,
        create_users: bool,
        late_seconds: float = LATE_SECONDS,
        users: UsersTable | None = _USERS,
    ) -> None:
        """With `create_users`, unknown members of rooms are added to `users`; otherwise their rooms are rejected.

        `late_seconds` must be less than the time for which ended rooms are kept, by more than clocks can differ.
        """
        self._pool = pool
        self._create_users = _creates_users(users) if create_users and users else None
        self._late_ms = late_seconds * 1000
        # partitioned tables of the app; looked up when needed
        self._partitioned: frozenset[str] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Lent]:
        """Lend a connection with a transaction. Raises NotNow if Postgres fails for a reason that may be temporary."""
        async with self._passing(), self._pool.transaction() as connection:
            yield connection

    async def write(self, batch: Batch) -> int:
        """Write a batch and return the number of inserted or changed rows. Raises RowFault or NotNow."""
        async with self._passing(), self._pool.lend() as connection:
            return await self._transact(connection, batch)

    async def ping(self) -> None:
        """Raise NotNow unless Postgres answers, has the tables and accepts writes."""
        async with self.transaction() as connection:
            if await connection.fetchval(_READ_ONLY):
                raise asyncpg.exceptions.ReadOnlySQLTransactionError("the database is read-only")

    async def identity(self) -> str:
        """An id of the database itself, whatever its name and address. Raises NotNow."""
        async with self.transaction() as connection:
            return str(await connection.fetchval(_IDENTITY))

    @asynccontextmanager
    async def _passing(self) -> AsyncIterator[None]:
        try:
            yield
        except ERRORS as error:
            if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
                # A session that was opened on a standby, or while the database was read-only, stays read-only.
                await self._pool.expire_connections()
            raise NotNow(_cause(error), self._pool.in_words(error)) from error

    async def _transact(self, connection: Lent, batch: Batch) -> int:
        # Only here can a row be at fault. The same error while connecting is the operator's to fix.
        try:
            async with self._pool.begin_on(connection):
                return await self._write(connection, batch)
        except _FAULTS_OF_THE_ROW as error:
            raise RowFault(in_words(error)) from error
        except asyncpg.PostgresError as error:
            self._partitioned = None  # it may have been partitioned since the lookup
            if _may_pass(error) or not await self._takes_no_row(connection):
                raise
            raise RowFault(in_words(error)) from error

    async def _takes_no_row(self, connection: Lent) -> bool:
        """Whether the statements succeed without rows."""
        try:
            async with self._pool.begin_on(connection):
                if self._create_users:
                    await connection.execute(self._create_users, [])
                await connection.execute(QUERIES["append_messages"], [], [])
                for query, kind in _KINDS.items():
                    nothing: list[list[object]] = [[] for _ in kind.__match_args__]
                    await self._run(connection, query, nothing)
        except ERRORS:
            return False
        return True

    async def _write(self, connection: Lent, batch: Batch) -> int:
        if self._create_users:
            await connection.execute(self._create_users, batch.users)
        written = await self._insert(connection, "upsert_rooms", batch.rows)
        written += await self._insert(connection, "upsert_activity", batch.activities)
        if batch.messages:
            written += _count(
                await connection.execute(
                    QUERIES["append_messages"],
                    [room_id for room_id, _ in batch.messages],
                    [orjson.dumps(added).decode() for _, added in batch.messages],
                )
            )
        written += await self._insert(connection, "upsert_attempts", batch.attempts)
        written += await self._insert(connection, "insert_referrals", batch.referrals)
        written += await self._insert(connection, "insert_reports", batch.reports)
        written += await self._insert(connection, "insert_history", batch.history)
        late = batch.last_changed_before(round(time.time() * 1000 - self._late_ms))
        if late:
            written -= _count(await connection.execute(QUERIES["drop_removed_rooms"], late))
        return written

    async def _insert(self, connection: Lent, query: str, rows: Sequence[_Row]) -> int:
        """Run a statement that takes rows as one array per column, and return the number of rows that it wrote."""
        if not rows:
            return 0
        columns = zip(*map(_COLUMNS[_KINDS[query]], rows), strict=True)
        return await self._run(connection, query, list(map(list, columns)))

    async def _run(self, connection: Lent, query: str, columns: Sequence[list[Any]]) -> int:
        table, instead = _PARTITIONED.get(query, ("", ()))
        queries: tuple[str, ...] = (query,)
        if table and table in await self._look_up_partitioned(connection):
            queries = instead
            if table == "reports":
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _REPORTS_LOCK)
        return sum([_count(await connection.execute(QUERIES[each], *columns)) for each in queries])

    async def _look_up_partitioned(self, connection: Lent) -> frozenset[str]:
        if self._partitioned is None:
            found = await connection.fetch(QUERIES["partitioned"])
            self._partitioned = frozenset(row["relname"] for row in found)
        return self._partitioned


def _count(status: str) -> int:
    """Read the number of rows from a command's status, such as `INSERT 0 5`."""
    return int(status.rpartition(" ")[2])


def _may_pass(error: asyncpg.PostgresError) -> bool:
    return (error.sqlstate or "XX")[:2] in _PASSING_CLASSES


def _cause(error: BaseException) -> str:
    """The cause of a temporary error, one of a few values that suit a label."""
    if isinstance(error, _TIMEOUTS):
        return "timeout"
    if isinstance(error, asyncpg.exceptions.TransactionRollbackError):
        return "conflict"
    if isinstance(error, asyncpg.exceptions.InsufficientResourcesError):
        return "resources"
    if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
        return "read_only"
    return "connection" if isinstance(error, _LOST) else "refused"

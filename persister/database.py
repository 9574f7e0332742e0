"""Writes batches to Postgres: one transaction each, and a verdict on what goes wrong.

What a caller may assume: after `write` returns the batch is committed; after it raises nothing of it is, or it
is and only the answer was lost. Writing a batch again, or an older one later, changes nothing that is newer.

Who is at fault for an error? What the server says of itself (it is away, full, read-only, too slow) passes. Bad values
are the row's. All else, a missing table as well as a trigger of the app that raises what it likes, is asked about once
more: the same statements without any row. When they are refused too, the operator has to mend the tables, and nothing
is given up; when they are taken, the rows are at fault.
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
from keepline.room.attempts import Attempts
from keepline.room.referrals import Referral
from keepline.room.reports import Report
from keepline.room.rows import ActivityRow, HistoryRow, RoomRow
from persister.fold import Batch

LATE_SECONDS = 1800.0
"""A room that has not changed for longer may have been removed already; younger ones cannot have been."""

# The row is at fault and will be next time.
_FAULTS_OF_THE_ROW = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,  # SQLSTATE class 22
    asyncpg.exceptions.ProgramLimitExceededError,
    ValueError,  # asyncpg refuses to encode a value
    TypeError,
    OverflowError,
)
_PASSING_CLASSES = ("08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX")
"""Classes of SQLSTATE that speak of the server, the session or other transactions, never of a row."""

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
    """Something in the batch can never be written; the text says what."""


class NotNow(Exception):
    """The batch could not be written at present. `cause` names the kind of reason for the metrics."""

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
"""What each statement that takes rows, as one array for each column, takes."""

_PARTITIONED = {
    "insert_history": ("chat_history", ("update_partitioned_history", "insert_partitioned_history")),
    "insert_reports": ("reports", ("insert_partitioned_reports",)),
}
"""What runs in the place of a statement where its table is partitioned."""

_REPORTS_LOCK = 0x6B65_6570_7265_7073  # "keepreps": one who writes to partitioned reports holds it

_COLUMNS = {kind: attrgetter(*kind.__match_args__) for kind in _KINDS.values()}
"""The values of a row, in the order of the parameters of its statement."""

_READ_ONLY = """SELECT current_setting('transaction_read_only')::boolean
    WHERE NOT EXISTS (SELECT version FROM active_rooms LIMIT 0)"""

_IDENTITY = """SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || oid::text
    FROM pg_database WHERE datname = current_database()"""

QUERIES = read_queries((Path(__file__).parent / "queries.sql").read_text(encoding="utf-8"))


class Database:
    """The tables that the persister writes."""

    def __init__(self, pool: Pool, *, create_users: bool, late_seconds: float = LATE_SECONDS) -> None:
        """With `create_users` unknown members of rooms are added to `users`, else their rooms are faults.

        `late_seconds` must be less than ended rooms are kept, by more than clocks differ.
        """
        self._pool = pool
        self._create_users = create_users
        self._late_ms = late_seconds * 1000
        self._partitioned: frozenset[str] | None = None  # tables of the app's; looked up when it is needed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Lent]:
        """Lend a connection with a transaction. What Postgres refuses meanwhile, and may not later, raises NotNow."""
        async with self._passing(), self._pool.transaction() as connection:
            yield connection

    async def write(self, batch: Batch) -> int:
        """Write a batch and return how many rows were inserted or changed. Raises RowFault or NotNow."""
        async with self._passing(), self._pool.lend() as connection:
            return await self._transact(connection, batch)

    async def ping(self) -> None:
        """Raise NotNow unless Postgres answers, has the tables and takes writes."""
        async with self.transaction() as connection:
            if await connection.fetchval(_READ_ONLY):
                raise asyncpg.exceptions.ReadOnlySQLTransactionError("the database is read-only")

    async def identity(self) -> str:
        """Name the database itself, whatever it is called and from where. Raises NotNow."""
        async with self.transaction() as connection:
            return str(await connection.fetchval(_IDENTITY))

    @asynccontextmanager
    async def _passing(self) -> AsyncIterator[None]:
        try:
            yield
        except ERRORS as error:
            if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
                # Sessions that were begun on a standby, or while the database was read-only, stay so for good.
                await self._pool.expire_connections()
            raise NotNow(_cause(error), self._pool.in_words(error)) from error

    async def _transact(self, connection: Lent, batch: Batch) -> int:
        # Only here can a row be at fault: an error of the same kind while connecting is the operator's.
        try:
            async with self._pool.begin_on(connection):
                return await self._write(connection, batch)
        except _FAULTS_OF_THE_ROW as error:
            raise RowFault(in_words(error)) from error
        except asyncpg.PostgresError as error:
            self._partitioned = None  # perhaps it was something else when it was looked up
            if _may_pass(error) or not await self._takes_no_row(connection):
                raise
            raise RowFault(in_words(error)) from error

    async def _takes_no_row(self, connection: Lent) -> bool:
        """Whether the statements are taken when there is nothing to write."""
        try:
            async with self._pool.begin_on(connection):
                await connection.execute(QUERIES["create_users"], [])
                await connection.execute(QUERIES["append_messages"], [], [])
                for query, kind in _KINDS.items():
                    nothing: list[list[object]] = [[] for _ in kind.__match_args__]
                    await self._run(connection, query, nothing)
        except ERRORS:
            return False
        return True

    async def _write(self, connection: Lent, batch: Batch) -> int:
        if self._create_users:
            await connection.execute(QUERIES["create_users"], batch.users)
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
        """Run a statement that takes rows as one array for each column; return how many it wrote."""
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
    """Name the kind of a passing fault; few values, fit for a label."""
    if isinstance(error, _TIMEOUTS):
        return "timeout"
    if isinstance(error, asyncpg.exceptions.TransactionRollbackError):
        return "conflict"
    if isinstance(error, asyncpg.exceptions.InsufficientResourcesError):
        return "resources"
    if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
        return "read_only"
    return "connection" if isinstance(error, _LOST) else "refused"

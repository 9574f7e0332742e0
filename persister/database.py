"""Writes batches to Postgres: one transaction each, and a verdict on what goes wrong.

What a caller may assume: after `write` returns the batch is committed; after it raises nothing of it is, or it
is and only the answer was lost. Writing a batch again, or an older one later, changes nothing that is newer.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from pathlib import Path

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from keepline.ops.postgres import Pool
from keepline.room.attempts import Attempts
from keepline.room.referrals import Referral
from keepline.room.reports import Report
from keepline.room.rows import ActivityRow, HistoryRow, RoomRow
from persister.fold import Batch

_ACQUIRE_SECONDS = 10.0

LATE_SECONDS = 1800.0
"""A room that has not changed for longer may have been removed already; younger ones cannot have been."""

# The row is at fault and will be next time. All else may pass: a server that is away, restarts, is read-only or
# full, a deadlock, a password or a table that the operator has yet to set up. Nothing is given up for those.
_FAULTS_OF_THE_ROW = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,  # SQLSTATE class 22
    asyncpg.exceptions.ProgramLimitExceededError,
    ValueError,  # asyncpg refuses to encode a value
    TypeError,
    OverflowError,
)
# The last is how asyncpg reports a command that races with the loss of its connection.
_PASSING = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, asyncpg.InternalClientError)


class RowFault(Exception):
    """Something in the batch can never be written; the text says what."""


class HistoryFault(RowFault):
    """Nothing in the batch is wrong but that `chat_history`, which may be the app's own, does not take its calls."""


class NotNow(Exception):
    """The batch could not be written at present. `cause` names the kind of reason for the metrics."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def read_queries(text: str) -> dict[str, str]:
    """Split a file of SQL into statements by their `-- name:` lines."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (sql.strip() for sql in parts[2::2]), strict=True))


_Rows = (
    Sequence[RoomRow]
    | Sequence[ActivityRow]
    | Sequence[HistoryRow]
    | Sequence[Attempts]
    | Sequence[Report]
    | Sequence[Referral]
)

_COLUMNS = {
    kind: attrgetter(*kind.__match_args__)
    for kind in (RoomRow, ActivityRow, HistoryRow, Attempts, Report, Referral)
}
"""The values of a row, in the order of the parameters of its statement."""

_READ_ONLY = """SELECT current_setting('transaction_read_only')::boolean
    WHERE NOT EXISTS (SELECT version FROM active_rooms LIMIT 0)"""

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

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        """Lend a connection. What Postgres refuses meanwhile, and may not later, raises NotNow."""
        try:
            async with self._pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                yield connection
        except _PASSING as error:
            if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
                # Sessions that were begun on a standby, or while the database was read-only, stay so for good.
                await self._pool.expire_connections()
            raise NotNow(_cause(error), _in_words(error)) from error

    async def write(self, batch: Batch) -> int:
        """Write a batch and return how many rows were inserted or changed. Raises RowFault or NotNow."""
        async with self.connection() as connection:
            return await self._transact(connection, batch)

    async def ping(self) -> None:
        """Raise NotNow unless Postgres answers, has the tables and takes writes."""
        async with self.connection() as connection:
            if await connection.fetchval(_READ_ONLY, timeout=_ACQUIRE_SECONDS):
                raise asyncpg.exceptions.ReadOnlySQLTransactionError("the database is read-only")

    async def _transact(self, connection: PoolConnectionProxy[asyncpg.Record], batch: Batch) -> int:
        # Only here can a row be at fault: an error of the same kind while connecting is the operator's.
        try:
            async with connection.transaction():
                return await self._write(connection, batch)
        except _FAULTS_OF_THE_ROW as error:
            raise RowFault(_in_words(error)) from error

    async def _write(self, connection: PoolConnectionProxy[asyncpg.Record], batch: Batch) -> int:
        if self._create_users:
            await connection.execute(QUERIES["create_users"], batch.users)
        written = await _insert(connection, "upsert_rooms", batch.rows)
        written += await _insert(connection, "upsert_activity", batch.activities)
        if batch.messages:
            written += _count(
                await connection.execute(
                    QUERIES["append_messages"],
                    [room_id for room_id, _ in batch.messages],
                    [orjson.dumps(added).decode() for _, added in batch.messages],
                )
            )
        written += await _insert(connection, "upsert_attempts", batch.attempts)
        written += await _insert(connection, "insert_referrals", batch.referrals)
        written += await _insert(connection, "insert_reports", batch.reports)
        # At last: what refuses it is a table of the app's own, and is told apart from all that came before.
        try:
            written += await _insert(connection, "insert_history", batch.history)
        except _FAULTS_OF_THE_ROW as error:
            raise HistoryFault(_in_words(error)) from error
        late = batch.last_changed_before(round(time.time() * 1000 - self._late_ms))
        if late:
            written -= _count(await connection.execute(QUERIES["drop_removed_rooms"], late))
        return written


async def _insert(
    connection: PoolConnectionProxy[asyncpg.Record],
    query: str,
    rows: _Rows,
) -> int:
    """Run a statement that takes rows as one array for each column; return how many it wrote."""
    if not rows:
        return 0
    columns = zip(*map(_COLUMNS[type(rows[0])], rows), strict=True)
    return _count(await connection.execute(QUERIES[query], *map(list, columns)))


def _count(status: str) -> int:
    """Read the number of rows from a command's status, such as `INSERT 0 5`."""
    return int(status.rpartition(" ")[2])


def _in_words(error: BaseException) -> str:
    """Describe an error for the log. Only of a missing user the detail: others quote rows, and with them chat."""
    message = error.message if isinstance(error, asyncpg.PostgresError) else None
    text = message or str(error) or type(error).__name__  # str() of what the server said adds its detail
    detail = error.detail if isinstance(error, asyncpg.ForeignKeyViolationError) else None
    return f"{text}; {detail}" if detail else text


def _cause(error: BaseException) -> str:
    """Name the kind of a passing fault; few values, fit for a label."""
    if isinstance(error, asyncpg.exceptions.QueryCanceledError | TimeoutError):
        return "timeout"
    if isinstance(error, asyncpg.exceptions.TransactionRollbackError):
        return "conflict"
    if isinstance(error, asyncpg.exceptions.InsufficientResourcesError):
        return "resources"
    if isinstance(error, asyncpg.exceptions.ReadOnlySQLTransactionError):
        return "read_only"
    lost = (
        OSError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.exceptions.PostgresConnectionError,
        asyncpg.exceptions.OperatorInterventionError,
    )
    return "connection" if isinstance(error, lost) else "refused"

"""Whose fault an error is: the row's, which is given up, or nobody's that lasts, which is waited out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from asyncpg import exceptions

from keepline.ops.postgres import in_words
from persister.database import Database, NotNow, RowFault, read_queries
from persister.fold import change_of, fold
from tests.unit.persister.calls import call, encoded

BATCH = fold(change_of(data) for data in encoded(call()))


class FailingPool:
    """A pool whose connection fails at the first statement with a row, or that has none to give."""

    def __init__(self, error: BaseException, *, at_acquire: bool = False, always: bool = False) -> None:
        self.error = error
        self.at_acquire = at_acquire
        self.always = always  # also when there is no row to write
        self.expired = False

    @asynccontextmanager
    async def lend(self) -> AsyncIterator["FailingPool"]:
        if self.at_acquire:
            raise self.error
        yield self

    @asynccontextmanager
    async def begin_on(self, _: "FailingPool") -> AsyncIterator[None]:
        yield

    def in_words(self, error: BaseException) -> str:
        return in_words(error)

    async def expire_connections(self) -> None:
        self.expired = True

    async def fetch(self, *_: Any) -> list[Any]:
        return []

    async def execute(self, _: str, *columns: Any) -> str:
        if self.always or any(columns):
            raise self.error
        return "INSERT 0 0"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(), "connection"),
        (exceptions.ConnectionDoesNotExistError("closed in the middle"), "connection"),
        (exceptions.AdminShutdownError("going down"), "connection"),
        (exceptions.CannotConnectNowError("starting up"), "connection"),
        (asyncpg.InterfaceError("connection is closed"), "connection"),
        (asyncpg.InternalClientError("cannot switch to state 15"), "connection"),
        (exceptions.DeadlockDetectedError("deadlock"), "conflict"),
        (exceptions.SerializationError("serialize"), "conflict"),
        (exceptions.ReadOnlySQLTransactionError("read only"), "read_only"),
        (exceptions.TooManyConnectionsError("too many"), "resources"),
        (exceptions.DiskFullError("full"), "resources"),
        (exceptions.QueryCanceledError("statement timeout"), "timeout"),
        (TimeoutError(), "timeout"),
        (exceptions.UndefinedTableError("not migrated"), "refused"),
        (exceptions.InsufficientPrivilegeError("not granted"), "refused"),
        (exceptions.InvalidPasswordError("rotated"), "refused"),
    ],
)
async def test_what_may_pass_is_waited_out(error: Exception, cause: str) -> None:
    for at_acquire in (False, True):
        pool = FailingPool(error, at_acquire=at_acquire, always=True)
        database = Database(pool, create_users=True)  # type: ignore[arg-type]
        with pytest.raises(NotNow) as caught:
            await database.write(BATCH)
        assert caught.value.cause == cause
        assert str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ForeignKeyViolationError("no such user"),
        exceptions.CheckViolationError("status"),
        exceptions.NotNullViolationError("email"),
        exceptions.UntranslatableCharacterError("\\u0000 cannot be converted to text"),
        exceptions.NumericValueOutOfRangeError("out of range"),
        exceptions.ProgramLimitExceededError("too large"),
        OverflowError("int too big"),
        ValueError("invalid input for query argument"),
        exceptions.RaiseError("not this one"),  # whatever a trigger of the app says
        exceptions.InsufficientPrivilegeError("new row violates row-level security policy"),
        exceptions.UndefinedTableError("relation of a trigger"),
    ],
)
async def test_what_will_fail_again_is_the_rows_fault(error: Exception) -> None:
    with pytest.raises(RowFault):
        await Database(FailingPool(error), create_users=True).write(BATCH)  # type: ignore[arg-type]


async def test_an_error_in_the_url_is_not_the_rows_fault() -> None:
    pool = FailingPool(exceptions.ClientConfigurationError("bad sslmode"), at_acquire=True)
    with pytest.raises(NotNow):
        await Database(pool, create_users=True).write(BATCH)  # type: ignore[arg-type]


def test_statements_are_found_by_their_names() -> None:
    text = "-- a file\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2;\n"
    assert read_queries(text) == {"one": "SELECT 1;", "two": "-- why\nSELECT 2;"}

"""How programs connect to Postgres."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
import orjson

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 30.0


async def set_codecs(connection: Connection) -> None:
    """Make `jsonb` values Python objects on this connection."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=orjson.loads, format="text"
    )


def _encode_jsonb(value: object) -> str:
    return orjson.dumps(value).decode()


async def _leave_as_it_is(_: object) -> None:
    """Spare each use the round trip in which asyncpg resets its session: ours change nothing of it."""


async def create_pool(url: str, *, application: str, max_size: int = 4) -> Pool:
    """Return a pool of at most `max_size` connections; none is opened before it is needed.

    So a program starts, and says what is wrong, while Postgres is away. A command that takes longer than 30 s
    is cancelled and raises TimeoutError; the server is told the same limit, so it gives up too.
    """
    pool: Pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        max_inactive_connection_lifetime=300,
        init=set_codecs,
        reset=_leave_as_it_is,
        server_settings={
            "application_name": application,
            "statement_timeout": str(round(COMMAND_SECONDS * 1000)),
            "idle_in_transaction_session_timeout": str(round(COMMAND_SECONDS * 1000)),
        },
    )
    return pool

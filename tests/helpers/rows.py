"""Rooms as Postgres holds them, in the form in which the HTTP API shows them."""

import json
import uuid
from datetime import datetime
from typing import Any

import asyncpg

from tests.helpers.waiting import eventually

_SQL = """
SELECT room_id, user_1, user_2, chat_mode, status, started_at, duration_seconds, grace_period_expires,
       user_1_connected, user_2_connected, messages, version, ended_reason, ended_at
FROM active_rooms WHERE room_id = $1
"""
_REPORTS = "SELECT reporter_id, reason FROM reports WHERE room_id = $1 ORDER BY reported_at"
_CONNECT_SECONDS = 10.0


async def row_of_room(database_url: str, room_id: str) -> dict[str, Any] | None:
    """The row of a room as a snapshot: ids as text, times in ms since 1970. None where there is no row."""
    connection = await asyncpg.connect(database_url, timeout=_CONNECT_SECONDS)
    try:
        row = await connection.fetchrow(_SQL, uuid.UUID(room_id))
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)
    return None if row is None else {name: _plain(name, value) for name, value in row.items()}


async def row_becomes(database_url: str, snapshot: dict[str, Any], timeout: float = 10.0) -> None:
    """Wait until the row of the snapshot's room is the snapshot, in every column."""

    async def matches() -> bool:
        found = await row_of_room(database_url, snapshot["room_id"])
        assert found == snapshot, f"{found} is not {snapshot}"
        return True

    await eventually(matches, timeout=timeout, interval=0.1, what="the row is as the HTTP API says")


def _plain(name: str, value: Any) -> Any:
    if name == "messages":
        return [{field: each for field, each in line.items() if field != "key"} for line in json.loads(value)]
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    return str(value) if isinstance(value, uuid.UUID) else value


async def reports_become(database_url: str, room_id: str, *reports: tuple[str, str]) -> None:
    """Wait until these have been reported of a room, each by whom and why, in this order."""

    async def stored() -> bool:
        connection = await asyncpg.connect(database_url, timeout=_CONNECT_SECONDS)
        try:
            rows = await connection.fetch(_REPORTS, uuid.UUID(room_id))
        finally:
            await connection.close(timeout=_CONNECT_SECONDS)
        found = [(str(row["reporter_id"]), row["reason"]) for row in rows]
        assert found == list(reports), found
        return True

    await eventually(stored, what="the reports reach Postgres")

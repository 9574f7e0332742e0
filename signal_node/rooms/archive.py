"""Rooms in Postgres: read when Redis does not have them. Nothing here is on the path of a signal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
from msgspec import Struct

from keepline.ops import postgres
from keepline.ops.postgres import Pool
from keepline.room.attempts import Attempts
from keepline.room.codec import BadRecord, message_from_dict
from keepline.room.record import Message, Room
from keepline.room.referrals import Referral
from keepline.room.rows import from_row

BATCH_ROWS = 1_000

_ROOMS = """SELECT room.room_id, user_1, user_2, started_at, duration_seconds, chat_mode, status,
    grace_period_expires, user_1_connected, user_2_connected, messages, created_at, room.updated_at, room.version,
    ended_reason, ended_at, user_1_last_message_at, user_2_last_message_at
    FROM active_rooms AS room LEFT JOIN text_room_activity AS activity ON activity.room_id = room.room_id"""
_ONE = f"{_ROOMS} WHERE room.room_id = $1::uuid"
_UNFINISHED = f"{_ROOMS} WHERE status <> 'ended' OR room.updated_at > now() - make_interval(secs => $1)"

_LIMITED = """SELECT abbrev(ip_address), attempts, (extract(epoch FROM first_attempt_at) * 1000)::bigint,
    (extract(epoch FROM last_attempt_at) * 1000)::bigint, (extract(epoch FROM expires_at) * 1000)::bigint
    FROM rate_limits WHERE expires_at > now()"""

_REFERRAL = """SELECT referral_code, target_user_id, created_by_user_id, target_name, created_by_name,
    (extract(epoch FROM created_at) * 1000)::bigint FROM referral_mappings
    WHERE referral_code = $1 AND created_at > now() - make_interval(secs => $2)"""


class ArchiveUnavailable(Exception):
    """Postgres could not be asked."""


class Archived(Struct, frozen=True, gc=False):
    """A room as Postgres has it, nobody connected. `held` says for each side whether its row counted it connected."""

    room: Room
    messages: list[Message]
    held: tuple[bool, bool]


class Archive:
    """The rooms in one Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ping(self) -> None:
        """Prove that Postgres answers. Raises ArchiveUnavailable."""
        try:
            await self._pool.fetchval("SELECT 1")
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error

    async def load(self, room_id: str) -> Archived | None:
        """The room, None when there is none. Raises ArchiveUnavailable, BadRecord."""
        try:
            row = await self._pool.fetchrow(_ONE, room_id)
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error
        return None if row is None else _archived(row)

    async def unfinished(self, ended_within_seconds: float) -> AsyncIterator[list[Archived]]:
        """All rooms that have not ended, and those that did lately, in batches. One batch is fetched ahead.

        Raises ArchiveUnavailable, BadRecord.
        """
        try:
            async with self._pool.transaction() as connection:
                cursor = await connection.cursor(_UNFINISHED, ended_within_seconds)
                rows = await cursor.fetch(BATCH_ROWS)
                while rows:
                    following = asyncio.create_task(cursor.fetch(BATCH_ROWS))
                    try:
                        await asyncio.sleep(0)  # so that Postgres is asked before the work on these begins
                        yield [_archived(row) for row in rows]
                        rows = await following
                    finally:
                        following.cancel()
                        await asyncio.wait([following])
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error

    async def limited(self) -> AsyncIterator[list[Attempts]]:
        """The failed logins that still count, in batches. Raises ArchiveUnavailable."""
        try:
            async with self._pool.transaction() as connection:
                cursor = await connection.cursor(_LIMITED)
                while rows := await cursor.fetch(BATCH_ROWS):
                    yield [Attempts(*row) for row in rows]
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error

    async def referral(self, code: str, keep_seconds: float) -> Referral | None:
        """The referral of a code that is not older than that; None when there is none. Raises ArchiveUnavailable."""
        try:
            row = await self._pool.fetchrow(_REFERRAL, code, keep_seconds)
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error
        return None if row is None else Referral(*row)


def _archived(row: asyncpg.Record) -> Archived:
    messages = _messages(row["messages"])
    try:
        room = from_row(row, messages)
    except ValueError as error:
        raise BadRecord(f"row of room {row['room_id']}: {error}") from error
    return Archived(room, messages, (row["user_1_connected"], row["user_2_connected"]))


def _messages(raw: Sequence[object]) -> list[Message]:
    if not raw:
        return []
    return sorted((message_from_dict(message) for message in raw), key=lambda message: message.seq)

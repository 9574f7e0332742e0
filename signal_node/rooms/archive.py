"""Rooms in Postgres, which are read if Redis does not have them. Nothing here is on the path of a signal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg
import structlog
from msgspec import Struct

from keepline.ops import postgres
from keepline.ops.postgres import Pool
from keepline.room.attempts import Attempts
from keepline.room.codec import BadRecord, message_from_dict
from keepline.room.record import Message, Room
from keepline.room.referrals import Referral
from keepline.room.rows import COLUMNS, from_row

BATCH_ROWS = 500
PAGE_IDS = 10_000
MAX_TOLD = 1_000
"""Number of unreadable rows that are remembered, so that each is logged once."""

_ROOMS = f"""SELECT {", ".join(f"room.{column}" for column in COLUMNS)}, room.messages, room.updated_at,
    activity.user_1_last_message_at, activity.user_2_last_message_at
    FROM active_rooms AS room LEFT JOIN text_room_activity AS activity ON activity.room_id = room.room_id"""  # noqa: S608 - the columns are our own
_MANY = f"{_ROOMS} WHERE room.room_id = ANY ($1::uuid[])"
_OF_USERS = f"{_ROOMS} WHERE (user_1 = ANY ($1::uuid[]) OR user_2 = ANY ($1::uuid[])) AND status <> 'ended'"
# Page by page, because a cursor would keep a transaction open, and a pooler's session, for the whole time.
_LIVE = """SELECT room_id FROM active_rooms WHERE status <> 'ended' AND room_id > $1::uuid
    ORDER BY room_id LIMIT $2"""
_ENDED = """SELECT room_id FROM active_rooms WHERE status = 'ended' AND room_id > $1::uuid
    AND updated_at > now() - make_interval(secs => $3) ORDER BY room_id LIMIT $2"""
_LEAST_ID = UUID(int=0)

_LIMITED = """SELECT abbrev(ip_address), attempts, (extract(epoch FROM first_attempt_at) * 1000)::bigint,
    (extract(epoch FROM last_attempt_at) * 1000)::bigint, (extract(epoch FROM expires_at) * 1000)::bigint
    FROM rate_limits WHERE expires_at > now() AND ip_address > $1::text::inet ORDER BY ip_address LIMIT $2"""
_LEAST_ADDRESS = "0.0.0.0/0"

_REFERRAL = """SELECT referral_code, target_user_id, created_by_user_id, target_name, created_by_name,
    (extract(epoch FROM created_at) * 1000)::bigint FROM referral_mappings
    WHERE referral_code = $1 AND created_at > now() - make_interval(secs => $2)"""

_log = structlog.get_logger(__name__)


class ArchiveUnavailable(Exception):
    """Postgres does not answer."""


class Archived(Struct, frozen=True, gc=False):
    """A room from Postgres, with no connected sides. `held` is whether its row has each side as connected."""

    room: Room
    messages: list[Message]
    held: tuple[bool, bool]


class Archive:
    """The rooms in one Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._told: set[UUID] = set()
        self.unreadable = 0
        """Unreadable rows, counted each time that they are read."""

    async def ping(self) -> None:
        """Check that Postgres answers. Raises ArchiveUnavailable."""
        await self._fetch("SELECT 1")

    async def load(self, room_id: str) -> Archived | None:
        """The room; None if there is none. Raises ArchiveUnavailable, BadRecord."""
        rows = await self._fetch(_MANY, [room_id])
        return _archived(rows[0]) if rows else None

    async def load_many(self, room_ids: Sequence[str]) -> list[Archived]:
        """The rooms that exist and can be read. Raises ArchiveUnavailable."""
        return self._readable(await self._fetch(_MANY, room_ids))

    async def live_rooms_of(self, users: Sequence[str]) -> list[Archived]:
        """The live rooms of these users that can be read. Raises ArchiveUnavailable."""
        return self._readable(await self._fetch(_OF_USERS, users))

    async def room_ids(self, ended_within_seconds: float) -> AsyncIterator[list[str]]:
        """The ids of all live rooms, then of those that ended recently, in pages.

        Raises ArchiveUnavailable.
        """
        for query, values in ((_LIVE, ()), (_ENDED, (ended_within_seconds,))):
            after = _LEAST_ID
            while rows := await self._fetch(query, after, PAGE_IDS, *values):
                yield [str(row[0]) for row in rows]
                after = rows[-1][0]

    async def limited(self) -> AsyncIterator[list[Attempts]]:
        """The failed logins that still count, in batches. Raises ArchiveUnavailable."""
        after = _LEAST_ADDRESS
        while rows := await self._fetch(_LIMITED, after, PAGE_IDS):
            yield [Attempts(*row) for row in rows]
            after = rows[-1][0]

    async def referral(self, code: str, keep_seconds: float) -> Referral | None:
        """The referral of a code, if it is not older than that; None otherwise. Raises ArchiveUnavailable."""
        rows = await self._fetch(_REFERRAL, code, keep_seconds)
        return Referral(*rows[0]) if rows else None

    async def _fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        try:
            return await self._pool.fetch(query, *values)
        except postgres.ERRORS as error:
            raise ArchiveUnavailable(self._pool.in_words(error)) from error

    def _readable(self, rows: Sequence[asyncpg.Record]) -> list[Archived]:
        """Skip unreadable rows. Each is logged once, and counted."""
        found = []
        for row in rows:
            try:
                found.append(_archived(row))
            except BadRecord as error:
                self.unreadable += 1
                room_id = row["room_id"]
                if room_id not in self._told and len(self._told) < MAX_TOLD:
                    self._told.add(room_id)
                    _log.error("row_unreadable", room=str(room_id), error=str(error))
        return found


def _archived(row: asyncpg.Record) -> Archived:
    try:
        messages = _messages(row["messages"])
        room = from_row(row, messages)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRecord(f"row of room {row['room_id']}: {error}") from error
    return Archived(room, messages, (row["user_1_connected"], row["user_2_connected"]))


def _messages(raw: Sequence[object]) -> list[Message]:
    if not raw:
        return []
    return sorted((message_from_dict(message) for message in raw), key=lambda message: message.seq)

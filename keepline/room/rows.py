"""A room as a row of `active_rooms`, and back, and as rows of the tables beside it. The only place that knows both.

What a row does not hold (which node and session had a side, the timers of the moment) is gone after a loss of
Redis; a room read back from Postgres has nobody connected.

Database clients bring a class of their own for UUIDs, much faster than the standard library's and equal to it. Whoever
makes many rows gives it as `uuid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from keepline.room.chat_keys import keys_of
from keepline.room.record import ChatMode, EndReason, Message, Room, Side

SHORTEST_CALL_MS = 5_000
"""Calls in which both sides were connected for less leave nothing in the history."""


class RoomRow(Struct, frozen=True, gc=False):
    """The columns of `active_rooms` that the cluster writes, as Postgres takes them. Messages go apart."""

    room_id: UUID
    user_1: UUID
    user_2: UUID
    started_at: datetime
    duration_seconds: int
    chat_mode: str
    status: str
    grace_period_expires: datetime | None
    user_1_connected: bool
    user_2_connected: bool
    created_at: datetime
    version: int
    ended_reason: str | None
    ended_at: datetime | None


COLUMNS = RoomRow.__struct_fields__
"""The columns of `active_rooms` that a row of the cluster has, by their names."""


class ActivityRow(Struct, frozen=True, gc=False):
    """A row of `text_room_activity`: who of a text room wrote when, in one version of the room."""

    room_id: UUID
    user_1_last_message_at: datetime | None
    user_2_last_message_at: datetime | None
    warning_started_at: datetime | None
    version: int


class HistoryRow(Struct, frozen=True, gc=False):
    """A row of `chat_history`: a call that is over, as one of its two users had it."""

    room_id: UUID
    user_id: UUID
    partner_id: UUID
    chat_mode: str
    started_at: datetime
    ended_at: datetime
    duration_seconds: int
    room_version: int


def to_row(room: Room, uuid: type[UUID] = UUID) -> RoomRow:
    """The row of a room. Raises ValueError when an id is no UUID."""
    return RoomRow(
        room_id=uuid(room.room_id),
        user_1=uuid(room.side_1.user),
        user_2=uuid(room.side_2.user),
        started_at=_to_time(room.started_at),
        duration_seconds=room.duration_seconds,
        chat_mode=room.chat_mode.value,
        status=room.status.value,
        grace_period_expires=_to_time_or_none(room.grace_period_expires),
        user_1_connected=room.side_1.connected,
        user_2_connected=room.side_2.connected,
        created_at=_to_time(room.opened_at),
        version=room.version,
        ended_reason=None if room.ended_reason is None else room.ended_reason.value,
        ended_at=_to_time_or_none(room.ended_at),
    )


def to_activity(room: Room, uuid: type[UUID] = UUID) -> ActivityRow | None:
    """The activity of a text room; None for a video room. Raises ValueError when its id is no UUID."""
    if room.chat_mode is not ChatMode.TEXT:
        return None
    return ActivityRow(
        room_id=uuid(room.room_id),
        user_1_last_message_at=_to_time_or_none(room.side_1.last_message_at),
        user_2_last_message_at=_to_time_or_none(room.side_2.last_message_at),
        warning_started_at=_to_time_or_none(room.warning_started_at),
        version=room.version,
    )


def to_history(room: Room, uuid: type[UUID] = UUID) -> tuple[HistoryRow, ...]:
    """What a room leaves in the history of its users: a row each, or nothing.

    Nothing while it lasts, when they never met, and when both were there for less than 5 s; the wait for one who does
    not come back any more is not counted. Raises ValueError when an id is no UUID.
    """
    if room.ended_at is None or room.met_at is None:
        return ()
    together_until = min([room.ended_at, *(s.absent_since for s in room.sides if s.absent_since is not None)])
    if together_until - room.met_at < SHORTEST_CALL_MS:
        return ()
    users = uuid(room.side_1.user), uuid(room.side_2.user)
    return tuple(
        HistoryRow(
            room_id=uuid(room.room_id),
            user_id=user,
            partner_id=partner,
            chat_mode=room.chat_mode.value,
            started_at=_to_time(room.met_at),
            ended_at=_to_time(room.ended_at),
            duration_seconds=(room.ended_at - room.met_at) // 1_000,
            room_version=room.version,
        )
        for user, partner in (users, users[::-1])
    )


class Columns(Protocol):
    """A row as a database client or a dict gives it."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""

    def get(self, column: str, /) -> Any:
        """The value of a column that need not be there; None then."""


def from_row(row: Columns, messages: Sequence[Message] = ()) -> Room:
    """The room of a row, with nobody connected. Raises ValueError.

    Both sides count as having come when the call had started; then a grace period that ran still does, and a
    text room has been quiet since its last change. Postgres sets the column `updated_at` itself. When each side wrote
    last is in the room's row of `text_room_activity`, if that is given with it.
    """
    opened_at, started_at = _to_ms(row["created_at"]), _to_ms(row["started_at"])
    updated_at = _to_ms(row["updated_at"])
    connected_1, connected_2 = row["user_1_connected"], row["user_2_connected"]
    # One side alone may be there from the first moment; that is no meeting yet.
    met = started_at != opened_at or (connected_1 and connected_2)
    grace_until = _to_ms_or_none(row["grace_period_expires"]) if met else None
    chat_mode, reason = row["chat_mode"], row["ended_reason"]
    is_video = chat_mode == ChatMode.VIDEO
    wrote_1 = _to_ms_or_none(row.get("user_1_last_message_at"))
    wrote_2 = _to_ms_or_none(row.get("user_2_last_message_at"))
    return Room(
        room_id=str(row["room_id"]),
        side_1=_absent_side(row["user_1"], connected_1, met, updated_at, grace_until, wrote_1, messages),
        side_2=_absent_side(row["user_2"], connected_2, met, updated_at, grace_until, wrote_2, messages),
        chat_mode=ChatMode.VIDEO if is_video else ChatMode(chat_mode),
        duration_seconds=row["duration_seconds"],
        opened_at=opened_at,
        updated_at=updated_at,
        waiting_from=opened_at,
        version=row["version"],
        met_at=started_at if met else None,
        timed_from=started_at if met and is_video else None,
        last_seq=max([message.seq for message in messages]) if messages else 0,
        ended_at=_to_ms_or_none(row["ended_at"]),
        ended_reason=None if reason is None else EndReason(reason),
    )


def _absent_side(
    user: object,
    connected: bool,
    met: bool,
    updated_at: int,
    grace_until: int | None,
    wrote_at: int | None,
    messages: Sequence[Message],
) -> Side:
    came = met or connected
    return Side(
        str(user),
        came=came,
        absent_since=updated_at if came else None,
        grace_until=grace_until,
        idle_from=updated_at if met else None,
        last_message_at=wrote_at,
        chat_keys=keys_of(str(user), messages),
    )


def _to_time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


def _to_time_or_none(ms: int | None) -> datetime | None:
    return None if ms is None else _to_time(ms)


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1_000)


def _to_ms_or_none(time: datetime | None) -> int | None:
    return None if time is None else _to_ms(time)

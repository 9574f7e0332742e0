"""Converts rooms to rows of `active_rooms` and of related tables, and back. No other module knows both forms.

A row does not contain which node and session held a side, or running timers. After Redis has lost its data they are
gone, so a room read from Postgres has no connected sides.

Database clients have their own class for UUIDs, which is much faster than the standard library's and equal to it. Pass
it as `uuid` to create many rows.
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
"""Calls in which both sides were connected for less time do not appear in the history."""


class RoomRow(Struct, frozen=True, gc=False):
    """The columns of `active_rooms` that the cluster writes, without messages, which are written separately."""

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
"""The names of the columns of `active_rooms` that a row of the cluster has."""


class ActivityRow(Struct, frozen=True, gc=False):
    """A row of `text_room_activity`: when each user of a text room last wrote, as of one version of the room."""

    room_id: UUID
    user_1_last_message_at: datetime | None
    user_2_last_message_at: datetime | None
    warning_started_at: datetime | None
    version: int


class HistoryRow(Struct, frozen=True, gc=False):
    """A row of `chat_history`: a finished call, from the view of one of its two users."""

    room_id: UUID
    user_id: UUID
    partner_id: UUID
    chat_mode: str
    started_at: datetime
    ended_at: datetime
    duration_seconds: int
    room_version: int


def to_row(room: Room, uuid: type[UUID] = UUID) -> RoomRow:
    """The row of a room. Raises ValueError if an id is not a UUID."""
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
    """The activity of a text room; None for a video room. Raises ValueError if its id is not a UUID."""
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
    """The history rows of a room: one per user, or none.

    There are none while the room lasts, if the members never met, or if both were present for less than 5 s. The wait
    for a member who does not return is not counted. Raises ValueError if an id is not a UUID.
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
    """A row from a database client, or a dict."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""

    def get(self, column: str, /) -> Any:
        """The value of an optional column; None if it is missing."""


def from_row(row: Columns, messages: Sequence[Message] = ()) -> Room:
    """The room of a row, with no connected sides. Raises ValueError.

    If the call had started, both sides count as having joined. A grace period that was running continues, and a text
    room counts as silent since its last change. Postgres itself sets the column `updated_at`. When each side last wrote
    comes from the room's row of `text_room_activity`, if the row includes it.
    """
    opened_at, started_at = _to_ms(row["created_at"]), _to_ms(row["started_at"])
    updated_at = _to_ms(row["updated_at"])
    connected_1, connected_2 = row["user_1_connected"], row["user_2_connected"]
    # One side may have been present from the start; that alone does not count as both having met.
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

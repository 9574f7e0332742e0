"""A room in the form for clients, the HTTP API and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from keepline.room.record import Message, Presence, Room, SideNumber, other

_encode = msgspec.json.Encoder().encode


class ChatLine(Struct):
    """Convert a message to the form for clients."""

    seq: int
    sender: str = msgspec.field(name="from")
    text: str
    at: int


class Snapshot(Struct):
    """A room in the form for clients and the HTTP API. Times are ms since 1970."""

    room_id: str
    user_1: str
    user_2: str
    chat_mode: Literal["video", "text"]
    status: Literal["active", "grace_period", "ended"]
    started_at: int
    duration_seconds: int
    grace_period_expires: int | None
    user_1_connected: bool
    user_2_connected: bool
    messages: list[ChatLine]
    version: int
    ended_reason: str | None
    ended_at: int | None


class HeldRoom(Struct):
    """A room and the user's side of it."""

    room: Snapshot
    side: Literal[1, 2]
    polite: bool
    peer: Presence


def chat_line(message: Message) -> ChatLine:
    """Convert a message to the form for clients."""
    return ChatLine(message.seq, message.sender, message.text, message.at)


def snapshot(room: Room, messages: Sequence[Message]) -> Snapshot:
    """Convert a room to the form for clients."""
    return Snapshot(
        room_id=room.room_id,
        user_1=room.side_1.user,
        user_2=room.side_2.user,
        chat_mode=room.chat_mode.value,
        status=room.status.value,
        started_at=room.started_at,
        duration_seconds=room.duration_seconds,
        grace_period_expires=room.grace_period_expires,
        user_1_connected=room.side_1.connected,
        user_2_connected=room.side_2.connected,
        messages=[chat_line(message) for message in messages],
        version=room.version,
        ended_reason=None if room.ended_reason is None else room.ended_reason.value,
        ended_at=room.ended_at,
    )


def held_room(room: Room, messages: Sequence[Message], side: SideNumber) -> HeldRoom:
    """A room as seen by the member on that side. Side 2 is polite in perfect negotiation."""
    peer = room.side(other(side)).presence
    return HeldRoom(snapshot(room, messages), side, side == 2, peer)


def to_json(value: Any) -> bytes:
    """Encode a snapshot, or anything that contains snapshots, as JSON."""
    return _encode(value)

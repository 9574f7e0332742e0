"""The JSON of records and events as it is nearly always: of this release, with nothing wrong. Read in one pass.

`codec` asks here first, which is a fraction of the work, and reads by itself what is not of this form: fields of a
newer release, which have to be kept, and mistakes, which have to be named.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from keepline.room.record import NO_EXTRA, ChatMode, EndReason, Message, Room, Side

_MOST = 2**63 - 1
_Name = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_NumberFrom1 = Annotated[int, Meta(ge=1, le=_MOST)]


class _Side(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    node: _Name | None
    session: _Name | None
    came: bool
    left: bool
    absent_since: _Count | None
    grace_until: _Count | None
    idle_from: _Count | None
    last_message_at: _Count | None


class _Record(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    format: Literal[1]
    room_id: _Name
    duration_seconds: _Count
    opened_at: _Count
    updated_at: _Count
    waiting_from: _Count
    version: _NumberFrom1
    write_id: str
    met_at: _Count | None
    timed_from: _Count | None
    ending_warned: bool
    last_seq: _Count
    mode_requested_by: Literal[1, 2] | None
    warning_started_at: _Count | None
    ended_at: _Count | None
    chat_mode: ChatMode
    status: str
    started_at: int
    grace_period_expires: int | None
    user_1: _Name
    user_2: _Name
    user_1_connected: bool
    user_2_connected: bool
    ended_reason: EndReason | None
    sides: tuple[_Side, _Side]


class _Message(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    seq: _NumberFrom1
    sender: _Name = msgspec.field(name="from")
    text: str
    at: _Count


class _Event(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    format: Literal[1]
    kind: _Name
    room: _Record
    message: _Message | None = None


_records = msgspec.json.Decoder(_Record)
_events = msgspec.json.Decoder(_Event)


def read_record(data: bytes | str) -> Room | None:
    """The room behind a record's JSON; None when it is not of the usual form."""
    try:
        return _room(_records.decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def read_event(data: bytes | str) -> tuple[str, Room, Message | None] | None:
    """Kind, room and message of an event's JSON; None when it is not of the usual form."""
    try:
        event = _events.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    room = _room(event.room)
    if room is None:
        return None
    line = event.message
    message = None if line is None else Message(line.seq, line.sender, line.text, line.at)
    return event.kind, room, message


def _room(record: _Record) -> Room | None:
    if (record.ended_at is None) is not (record.ended_reason is None):
        return None
    side_1, side_2 = record.sides
    return Room(
        record.room_id,
        _side(record.user_1, side_1),
        _side(record.user_2, side_2),
        record.chat_mode,
        record.duration_seconds,
        record.opened_at,
        record.updated_at,
        record.waiting_from,
        record.version,
        record.write_id,
        record.met_at,
        record.timed_from,
        record.ending_warned,
        record.last_seq,
        record.mode_requested_by,
        record.warning_started_at,
        record.ended_at,
        record.ended_reason,
        NO_EXTRA,
    )


def _side(user: str, side: _Side) -> Side:
    return Side(
        user,
        side.node,
        side.session,
        side.came,
        side.left,
        side.absent_since,
        side.grace_until,
        side.idle_from,
        side.last_message_at,
        NO_EXTRA,
    )

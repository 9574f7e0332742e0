"""The JSON of a record, as it stands in Redis, and of the events that are made from it.

Both carry the number of their format. Fields that this release does not know are kept and written back, so
that an old node in a rolling upgrade loses nothing that a newer one wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import orjson

from keepline.room.record import (
    NO_EXTRA,
    ChatMode,
    EndReason,
    Message,
    Room,
    Side,
)

RECORD_FORMAT = 1
EVENT_FORMAT = 1


class BadRecord(ValueError):
    """A record or an event that cannot be read; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the persister is told of one transition: the record it led to and the message it added, if any."""

    kind: str
    room: Room
    message: Message | None = None
    extra: Mapping[str, object] = field(default_factory=lambda: NO_EXTRA)


_SIDE_FIELDS = tuple(f.name for f in fields(Side) if f.name not in ("user", "extra"))
_PLAIN_FIELDS = (
    "room_id",
    "duration_seconds",
    "opened_at",
    "updated_at",
    "version",
    "write_id",
    "met_at",
    "timed_from",
    "ending_warned",
    "last_seq",
    "mode_requested_by",
    "warning_started_at",
    "ended_at",
)
# Written for readers of Redis, computed again by whoever decodes.
_DERIVED_FIELDS = ("status", "started_at", "grace_period_expires", "user_1_connected", "user_2_connected")
_ROOM_FIELDS = frozenset(
    (*_PLAIN_FIELDS, *_DERIVED_FIELDS, "format", "user_1", "user_2", "chat_mode", "ended_reason", "sides")
)
_EVENT_FIELDS = frozenset(("format", "kind", "room", "message"))


def record_to_dict(room: Room) -> dict[str, Any]:
    """The record as JSON types, with the derived fields beside the kept ones."""
    return {
        **room.extra,
        "format": RECORD_FORMAT,
        **{name: getattr(room, name) for name in _PLAIN_FIELDS},
        "chat_mode": room.chat_mode.value,
        "status": room.status.value,
        "started_at": room.started_at,
        "grace_period_expires": room.grace_period_expires,
        "user_1": room.side_1.user,
        "user_2": room.side_2.user,
        "user_1_connected": room.side_1.connected,
        "user_2_connected": room.side_2.connected,
        "ended_reason": None if room.ended_reason is None else room.ended_reason.value,
        "sides": [_side_to_dict(side) for side in room.sides],
    }


def _side_to_dict(side: Side) -> dict[str, Any]:
    return {**side.extra, **{name: getattr(side, name) for name in _SIDE_FIELDS}}


def encode_record(room: Room) -> bytes:
    """The record's JSON. Raises nothing: a Room is well-formed."""
    return orjson.dumps(record_to_dict(room))


def decode_record(data: bytes | str) -> Room:
    """The room behind a record's JSON. Raises BadRecord."""
    return record_from_dict(_load(data))


def record_from_dict(raw: Mapping[str, Any]) -> Room:
    """The room behind a record's JSON object. Raises BadRecord."""
    try:
        plain = {name: raw[name] for name in _PLAIN_FIELDS}
        sides = raw["sides"]
        room = Room(
            **plain,
            side_1=_side_from_dict(raw["user_1"], sides[0]),
            side_2=_side_from_dict(raw["user_2"], sides[1]),
            chat_mode=ChatMode(raw["chat_mode"]),
            ended_reason=None if raw["ended_reason"] is None else EndReason(raw["ended_reason"]),
            extra=_rest(raw, _ROOM_FIELDS),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadRecord(f"not a room record: {type(error).__name__}: {error}") from error
    _check(room)
    return room


def _side_from_dict(user: str, raw: Mapping[str, Any]) -> Side:
    known = {name: raw[name] for name in _SIDE_FIELDS}
    return Side(user=user, **known, extra=_rest(raw, frozenset(_SIDE_FIELDS)))


def _rest(raw: Mapping[str, Any], known: frozenset[str]) -> Mapping[str, object]:
    return {name: value for name, value in raw.items() if name not in known} or NO_EXTRA


def _check(room: Room) -> None:
    numbers = (room.opened_at, room.updated_at, room.version, room.duration_seconds, room.last_seq)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise BadRecord("not a room record: a time, the version or a count is not a whole number")
    names = (room.room_id, room.side_1.user, room.side_2.user)
    if not all(type(name) is str and name for name in names):
        raise BadRecord("not a room record: the room or a user has no id")
    if (room.ended_at is None) is not (room.ended_reason is None):
        raise BadRecord("not a room record: an end needs both its time and its reason")


def message_to_dict(message: Message) -> dict[str, Any]:
    """A message as clients and Postgres see it."""
    return {"seq": message.seq, "from": message.sender, "text": message.text, "at": message.at}


def message_from_dict(raw: Mapping[str, Any]) -> Message:
    """The message behind its JSON object. Raises BadRecord."""
    try:
        message = Message(seq=raw["seq"], sender=raw["from"], text=raw["text"], at=raw["at"])
    except (KeyError, TypeError) as error:
        raise BadRecord(f"not a message: {type(error).__name__}: {error}") from error
    if type(message.seq) is not int or type(message.at) is not int or message.seq < 1:
        raise BadRecord("not a message: seq and at are whole numbers, seq from 1")
    if type(message.sender) is not str or type(message.text) is not str:
        raise BadRecord("not a message: from and text are strings")
    return message


def encode_message(message: Message) -> bytes:
    """A message's JSON."""
    return orjson.dumps(message_to_dict(message))


def decode_message(data: bytes | str) -> Message:
    """The message behind its JSON. Raises BadRecord."""
    return message_from_dict(_load(data))


def encode_event(event: Event) -> bytes:
    """An event's JSON."""
    body: dict[str, Any] = {
        **event.extra,
        "format": EVENT_FORMAT,
        "kind": event.kind,
        "room": record_to_dict(event.room),
    }
    if event.message is not None:
        body["message"] = message_to_dict(event.message)
    return orjson.dumps(body)


def decode_event(data: bytes | str) -> Event:
    """The event behind its JSON. Raises BadRecord, also for a format newer than this release."""
    raw = _load(data)
    if raw.get("format") != EVENT_FORMAT:
        raise BadRecord(f"an event of format {raw.get('format')!r}; this release reads format {EVENT_FORMAT}")
    if type(raw.get("kind")) is not str or not isinstance(raw.get("room"), dict):
        raise BadRecord("not an event: it needs a kind and a room")
    message = raw.get("message")
    return Event(
        kind=raw["kind"],
        room=record_from_dict(raw["room"]),
        message=None if message is None else message_from_dict(message),
        extra=_rest(raw, _EVENT_FIELDS),
    )


def _load(data: bytes | str) -> dict[str, Any]:
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BadRecord("not a JSON object")
    return cast(dict[str, Any], raw)

"""The JSON of a record, as it stands in Redis, and of the events that are made from it.

Both carry the number of their format. Fields that this release does not know are kept and written back, so
that an old node in a rolling upgrade loses nothing that a newer one wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson
from msgspec import Struct

from keepline.room.record import (
    NO_EXTRA,
    ChatMode,
    EndReason,
    Message,
    Room,
    Side,
)
from keepline.room.schema import read_event, read_record

RECORD_FORMAT = 1
EVENT_FORMAT = 1

EVENT_FIELD = "event"
"""The field of an entry of the event streams that holds the event's JSON."""


class BadRecord(ValueError):
    """A record or an event that cannot be read; the text says what is wrong with it."""


class Event(Struct, frozen=True, gc=False):
    """What the persister is told of one transition: the record it led to and the message it added, if any."""

    kind: str
    room: Room
    message: Message | None = None
    extra: Mapping[str, object] = NO_EXTRA


_Test = Callable[[object], bool]


def _flag(value: object) -> bool:
    return type(value) is bool


def _text(value: object) -> bool:
    return type(value) is str


def _name(value: object) -> bool:
    return type(value) is str and value != ""


def _count(value: object) -> bool:
    return type(value) is int and value >= 0


def _number_from_1(value: object) -> bool:
    return type(value) is int and value >= 1


def _one_of(*values: object) -> _Test:
    # By type as well, for True == 1.
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def _or_null(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


_time = _count
_PLAIN_FIELDS: dict[str, _Test] = {
    "room_id": _name,
    "duration_seconds": _count,
    "opened_at": _time,
    "updated_at": _time,
    "waiting_from": _time,
    "version": _number_from_1,
    "write_id": _text,
    "met_at": _or_null(_time),
    "timed_from": _or_null(_time),
    "ending_warned": _flag,
    "last_seq": _count,
    "mode_requested_by": _or_null(_one_of(1, 2)),
    "warning_started_at": _or_null(_time),
    "ended_at": _or_null(_time),
}
_SIDE_FIELDS: dict[str, _Test] = {
    "node": _or_null(_name),
    "session": _or_null(_name),
    "came": _flag,
    "left": _flag,
    "absent_since": _or_null(_time),
    "grace_until": _or_null(_time),
    "idle_from": _or_null(_time),
    "last_message_at": _or_null(_time),
}
_RECORD_FIELDS: dict[str, _Test] = {
    **_PLAIN_FIELDS,
    "user_1": _name,
    "user_2": _name,
    "chat_mode": _one_of(*(mode.value for mode in ChatMode)),
    "ended_reason": _or_null(_one_of(*(reason.value for reason in EndReason))),
    "sides": lambda value: type(value) is list and len(value) == 2,
}
_MESSAGE_FIELDS: dict[str, _Test] = {"seq": _number_from_1, "from": _name, "text": _text, "at": _time}
_EVENT_FIELDS: dict[str, _Test] = {"kind": _name}
# Written for readers of Redis, computed again by whoever decodes.
_DERIVED_FIELDS = ("status", "started_at", "grace_period_expires", "user_1_connected", "user_2_connected")
_ALL_RECORD_FIELDS = frozenset(("format", *_RECORD_FIELDS, *_DERIVED_FIELDS))
_ALL_EVENT_FIELDS = frozenset(("format", "room", "message", *_EVENT_FIELDS))


def record_to_dict(room: Room) -> dict[str, Any]:
    """The record as JSON types, with the derived fields beside the kept ones."""
    return {
        "format": RECORD_FORMAT,
        "version": room.version,  # so far in front for `is_of_version`
        **room.extra,
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
    room = read_record(data)
    return record_from_dict(_load(data)) if room is None else room


def is_of_version(data: bytes, version: int) -> bool:
    """Whether a record's JSON says that it is of that version, by its first bytes: True is certain, False is not."""
    return data.startswith(b'{"format":%d,"version":%d,' % (RECORD_FORMAT, version))


def record_from_dict(raw: object) -> Room:
    """The room behind a record's JSON object. Raises BadRecord, also for a format of another release."""
    raw = _object(raw, "a room record", RECORD_FORMAT)
    known = _known(raw, _RECORD_FIELDS, "a room record")
    if (known["ended_at"] is None) is not (known["ended_reason"] is None):
        raise BadRecord("not a room record: an end needs both its time and its reason")
    side_1, side_2 = known["sides"]
    reason = known["ended_reason"]
    return Room(
        **{name: known[name] for name in _PLAIN_FIELDS},
        side_1=_side_from_dict(known["user_1"], side_1),
        side_2=_side_from_dict(known["user_2"], side_2),
        chat_mode=ChatMode(known["chat_mode"]),
        ended_reason=None if reason is None else EndReason(reason),
        extra=_rest(raw, _ALL_RECORD_FIELDS),
    )


def _side_from_dict(user: str, raw: object) -> Side:
    raw = _object(raw, "a side of a room")
    return Side(user=user, **_known(raw, _SIDE_FIELDS, "a side of a room"), extra=_rest(raw, _SIDE_FIELDS))


def _object(raw: object, what: str, expected_format: int | None = None) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise BadRecord(f"not {what}: not a JSON object")
    if expected_format is not None and not _one_of(expected_format)(raw.get("format")):
        raise BadRecord(
            f"{what} of format {raw.get('format')!r}; this release reads format {expected_format}"
        )
    return raw


def _known(raw: Mapping[str, Any], tests: Mapping[str, _Test], what: str) -> dict[str, Any]:
    """The fields that `tests` names, each with a value it can have. Errors show no value: it may be chat."""
    missing = [name for name in tests if name not in raw]
    wrong = [name for name, test in tests.items() if name in raw and not test(raw[name])]
    if missing or wrong:
        raise BadRecord(f"not {what}: missing fields {missing}, wrong values in {wrong}")
    return {name: raw[name] for name in tests}


def _rest(raw: Mapping[str, Any], known: Collection[str]) -> Mapping[str, object]:
    return {name: value for name, value in raw.items() if name not in known} or NO_EXTRA


def message_to_dict(message: Message) -> dict[str, Any]:
    """A message as clients and Postgres see it."""
    return {"seq": message.seq, "from": message.sender, "text": message.text, "at": message.at}


def message_from_dict(raw: object) -> Message:
    """The message behind its JSON object. Raises BadRecord."""
    known = _known(_object(raw, "a message"), _MESSAGE_FIELDS, "a message")
    return Message(seq=known["seq"], sender=known["from"], text=known["text"], at=known["at"])


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
    usual = read_event(data)
    if usual is not None:
        return Event(*usual)
    raw = _object(_load(data), "an event", EVENT_FORMAT)
    message = raw.get("message")
    return Event(
        **_known(raw, _EVENT_FIELDS, "an event"),
        room=record_from_dict(raw.get("room")),
        message=None if message is None else message_from_dict(message),
        extra=_rest(raw, _ALL_EVENT_FIELDS),
    )


def _load(data: bytes | str) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error

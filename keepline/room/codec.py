"""The JSON of records, as stored in Redis, and of the events that are made from them.

`record` defines the fields and their types. This module defines only where the serialized form differs: the users are
fields of the record instead of the sides, and derived fields are included for readers of Redis, but computed again when
a record is read.

Records and events have a format number. Fields marked as added may be missing. Unknown fields are kept and written
back, so that during a rolling upgrade an old node loses nothing that a newer one wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, get_origin

import msgspec
import orjson
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, asdict, astuple, fields

from keepline.room.record import ADDED, NO_EXTRA, Message, Name, Room, Side

RECORD_FORMAT = 1
EVENT_FORMAT = 1

EVENT_FIELD = "event"
"""The field of a stream entry that holds the event's JSON."""

RESTORED = "restore"
"""Kind of an event that is not a transition: data that Redis had lost was restored."""

_DERIVED = ("status", "started_at", "grace_period_expires", "user_1_connected", "user_2_connected")


class BadRecord(ValueError):
    """A record or an event cannot be read. The message says what is wrong with it."""


class Event(Struct, frozen=True, gc=False):
    """One transition, as told to the persister: the resulting record, and the message it added, if any."""

    kind: str
    room: Room
    message: Message | None = None
    extra: Mapping[str, object] = NO_EXTRA


# --- the written forms ---


def _is_added(field: FieldInfo) -> bool:
    return get_origin(field.type) is Annotated and ADDED in field.type.__metadata__


_ADDED = {
    kind: {field.name: field.default for field in fields(kind) if _is_added(field)} for kind in (Room, Side)
}
"""Fields that may be missing from a record, with their defaults. They are not written while they have these values."""


def _form(kind: type[Struct], apart: Collection[str], beside: Mapping[str, Any], *, strict: bool) -> Any:
    """A struct type for the serialized form of `kind`: its fields except `apart`, plus those of `beside`.

    `strict` rejects unknown fields.
    """
    own = [
        (field.name, field.type, field.default if _is_added(field) else NODEFAULT)
        for field in fields(kind)
        if field.name not in apart
    ]
    written = [*own, *((name, kind, NODEFAULT) for name, kind in beside.items())]
    if kind is Room:
        written += [(name, Any, None) for name in _DERIVED]
    return msgspec.defstruct(
        kind.__name__, written, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=strict
    )


def _record_form(*, strict: bool) -> tuple[Any, Any]:
    side: Any = _form(Side, ("user", "extra"), {}, strict=strict)
    beside = {"format": Literal[1], "user_1": Name, "user_2": Name, "sides": tuple[side, side]}
    return side, _form(Room, ("side_1", "side_2", "extra"), beside, strict=strict)


_UsualSide, _UsualRecord = _record_form(strict=True)
_AnySide, _AnyRecord = _record_form(strict=False)
_SIDE_FIELDS: tuple[str, ...] = _AnySide.__struct_fields__
_RECORD_FIELDS: tuple[str, ...] = _AnyRecord.__struct_fields__
_OWN_FIELDS = len(Room.__struct_fields__) - 3
"""Number of a room's own fields, without sides and extra fields. The serialized form starts with them, in this
order.
"""


class _Event(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    format: Literal[1]
    kind: Name
    room: _UsualRecord  # type: ignore[valid-type]
    message: Message | None = None


_records = msgspec.json.Decoder(_UsualRecord)
_events = msgspec.json.Decoder(_Event)
_NOT_USUAL = (msgspec.MsgspecError, ValueError, RecursionError)


# --- records ---


def record_to_dict(room: Room) -> dict[str, Any]:
    """The record as JSON types, with the derived fields."""
    own = _own_fields(room)
    for name in ("side_1", "side_2", "extra"):
        del own[name]
    return {
        "format": RECORD_FORMAT,
        "version": room.version,  # must be near the front, for `is_of_version`
        **room.extra,
        **own,
        "user_1": room.side_1.user,
        "user_2": room.side_2.user,
        "sides": [_side_to_dict(side) for side in room.sides],
        "status": room.status,
        "started_at": room.started_at,
        "grace_period_expires": room.grace_period_expires,
        "user_1_connected": room.side_1.connected,
        "user_2_connected": room.side_2.connected,
    }


def _own_fields(struct: Room | Side) -> dict[str, Any]:
    own = asdict(struct)
    for name, default in _ADDED[type(struct)].items():
        if own[name] == default:
            del own[name]
    return own


def _side_to_dict(side: Side) -> dict[str, Any]:
    own = _own_fields(side)
    del own["user"], own["extra"]
    return {**side.extra, **own} if side.extra else own


def encode_record(room: Room) -> bytes:
    """Encode a record as JSON. Always succeeds, because a Room is well-formed."""
    return orjson.dumps(record_to_dict(room))


def is_of_version(data: bytes, version: int) -> bool:
    """Whether the first bytes of a record's JSON show that it has that version. False may be wrong; True never is."""
    return data.startswith(b'{"format":%d,"version":%d,' % (RECORD_FORMAT, version))


def decode_record(data: bytes | str) -> Room:
    """Decode a record. Raises BadRecord.

    Nearly all records are valid and from this release, and take one pass. Others are read again, to keep the fields of
    a newer release and to report errors.
    """
    try:
        return _room(_records.decode(data))
    except _NOT_USUAL:
        return record_from_dict(_load(data))


def record_from_dict(raw: object) -> Room:
    """Convert a record's JSON object to a room. Raises BadRecord, also for a format of another release."""
    raw = _object(raw, "a room record", RECORD_FORMAT)
    record = _convert(raw, _AnyRecord, "a room record")
    side_1, side_2 = (_rest(side, _SIDE_FIELDS) for side in raw["sides"])
    return _room(record, _rest(raw, _RECORD_FIELDS), side_1, side_2)


def _room(
    record: Any,
    extra: Mapping[str, object] = NO_EXTRA,
    extra_1: Mapping[str, object] = NO_EXTRA,
    extra_2: Mapping[str, object] = NO_EXTRA,
) -> Room:
    if (record.ended_at is None) is not (record.ended_reason is None):
        raise BadRecord("not a room record: ended_at and ended_reason must be set together")
    own: tuple[Any, ...] = astuple(record)[:_OWN_FIELDS]
    side_1, side_2 = record.sides
    return Room(  # type: ignore[call-arg]
        own[0],
        Side(record.user_1, *astuple(side_1), extra_1),  # type: ignore[call-arg]
        Side(record.user_2, *astuple(side_2), extra_2),  # type: ignore[call-arg]
        *own[1:],
        extra,
    )


# --- messages and events ---


def message_to_dict(message: Message) -> dict[str, Any]:
    """A message as stored in Postgres."""
    shown = {"seq": message.seq, "from": message.sender, "text": message.text, "at": message.at}
    return shown if message.key is None else {**shown, "key": message.key}


def message_from_dict(raw: object) -> Message:
    """Convert a message's JSON object. Raises BadRecord."""
    message: Message = _convert(raw, Message, "a message")
    return message


def encode_message(message: Message) -> bytes:
    """Encode a message as JSON."""
    return msgspec.json.encode(message)


def decode_message(data: bytes | str) -> Message:
    """Decode a message. Raises BadRecord."""
    return message_from_dict(_load(data))


def encode_event(event: Event) -> bytes:
    """Encode an event as JSON."""
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
    """Decode an event. Raises BadRecord, also for a format newer than this release."""
    try:
        event = _events.decode(data)
        return Event(event.kind, _room(event.room), event.message)
    except _NOT_USUAL:
        raw = _object(_load(data), "an event", EVENT_FORMAT)
    message = raw.get("message")
    return Event(
        _convert(raw.get("kind"), Name, "an event of a kind"),
        record_from_dict(raw.get("room")),
        None if message is None else message_from_dict(message),
        _rest(raw, _Event.__struct_fields__),
    )


# --- what is not of the usual form ---


def _object(raw: object, what: str, expected_format: int) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise BadRecord(f"not {what}: not a JSON object")
    number = raw.get("format")
    if type(number) is not int or number != expected_format:
        raise BadRecord(f"{what} of format {number!r}; this release reads format {expected_format}")
    return raw


def _convert(raw: object, form: Any, what: str) -> Any:
    """Convert a value to the type. Raises BadRecord, whose message never quotes a value, which may be chat."""
    try:
        return msgspec.convert(raw, form)
    except (msgspec.ValidationError, RecursionError) as error:
        what = "a side of a room" if "$.sides[" in str(error) else what
        raise BadRecord(f"not {what}: {error}") from None


def _rest(raw: Mapping[str, Any], known: Collection[str]) -> Mapping[str, object]:
    return {name: value for name, value in raw.items() if name not in known} or NO_EXTRA


def _load(data: bytes | str) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error

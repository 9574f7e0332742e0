"""The written form of records, messages and events: nothing is lost, and nothing broken is let in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from keepline.room.codec import (
    BadRecord,
    Event,
    decode_event,
    decode_message,
    decode_record,
    encode_event,
    encode_message,
    encode_record,
    is_of_version,
    record_from_dict,
    record_to_dict,
)
from keepline.room.commands import End, RequestVideo
from keepline.room.record import EndReason, Message, Room
from tests.unit.room.calls import ROOM, T0, USER_1, USER_2, text, video
from tests.unit.room.histories import random_lives, rooms

DERIVED = {"status", "started_at", "grace_period_expires", "user_1_connected", "user_2_connected"}
JUNK: list[object] = [None, True, False, -1, 0, 1.5, 3, "", "x", [], [None, None], ["x", "y"], {}, {"x": 1}]

Path = tuple[str | int, ...]

later_fields = st.dictionaries(
    st.text(min_size=1, max_size=8).map(lambda name: f"later_{name}"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
messages = st.builds(
    Message,
    seq=st.integers(1, 2**40),
    sender=st.sampled_from((USER_1, USER_2)),
    text=st.text(max_size=500),
    at=st.integers(0, 2**43),
)


@random_lives
@given(rooms())
def test_decoding_undoes_encoding(room: Room) -> None:
    assert decode_record(encode_record(room)) == room
    assert decode_record(encode_record(room).decode()) == room
    assert record_from_dict(record_to_dict(room)) == room


@random_lives
@given(rooms(), later_fields, later_fields, later_fields)
def test_fields_of_a_newer_release_are_carried_along(
    room: Room, of_room: dict[str, object], of_side_1: dict[str, object], of_side_2: dict[str, object]
) -> None:
    written = record_to_dict(room) | of_room
    written["sides"] = [written["sides"][0] | of_side_1, written["sides"][1] | of_side_2]
    read = decode_record(orjson.dumps(written))
    assert orjson.loads(encode_record(read)) == written
    assert (read.extra, read.side_1.extra, read.side_2.extra) == (of_room, of_side_1, of_side_2)


@random_lives
@given(rooms(), st.none() | messages, st.text(min_size=1, max_size=10), later_fields)
def test_events_come_back_as_they_went(
    room: Room, message: Message | None, kind: str, extra: dict[str, object]
) -> None:
    event = Event(kind, room, message, extra)
    assert decode_event(encode_event(event)) == event
    assert decode_event(encode_event(decode_event(encode_event(event)))) == event


@random_lives
@given(messages)
def test_messages_come_back_as_they_went(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


def test_a_record_is_written_with_the_fields_that_others_read() -> None:
    call = video(90)
    call.at(5_000).lose(2)
    assert orjson.loads(encode_record(replace(call.room, write_id="w-1"))) == {
        "format": 1,
        "room_id": ROOM,
        "user_1": USER_1,
        "user_2": USER_2,
        "chat_mode": "video",
        "duration_seconds": 90,
        "opened_at": T0,
        "started_at": T0,
        "updated_at": T0 + 5_000,
        "waiting_from": T0,
        "version": 4,
        "write_id": "w-1",
        "status": "grace_period",
        "grace_period_expires": T0 + 15_000,
        "user_1_connected": True,
        "user_2_connected": False,
        "met_at": T0,
        "timed_from": T0,
        "ending_warned": False,
        "last_seq": 0,
        "mode_requested_by": None,
        "warning_started_at": None,
        "ended_at": None,
        "ended_reason": None,
        "sides": [
            {
                "node": "node-1",
                "session": "session-1",
                "came": True,
                "left": False,
                "absent_since": None,
                "grace_until": None,
                "idle_from": T0,
                "last_message_at": None,
            },
            {
                "node": None,
                "session": None,
                "came": True,
                "left": False,
                "absent_since": T0 + 5_000,
                "grace_until": T0 + 15_000,
                "idle_from": T0,
                "last_message_at": None,
            },
        ],
    }


@random_lives
@given(rooms(), later_fields, st.integers(-2, 2))
def test_the_version_can_be_told_by_the_first_bytes(
    room: Room, of_room: dict[str, object], change: int
) -> None:
    later = decode_record(orjson.dumps(record_to_dict(room) | of_room))
    for written in (encode_record(room), encode_record(later)):
        assert is_of_version(written, room.version + change) == (change == 0)
    assert not is_of_version(encode_record(room), room.version * 10)
    assert not is_of_version(encode_record(replace(room, version=room.version * 10)), room.version)


def test_a_message_and_an_event_are_written_as_others_read_them() -> None:
    message = Message(3, USER_1, "hi", T0)
    written = {"seq": 3, "from": USER_1, "text": "hi", "at": T0}
    assert orjson.loads(encode_message(message)) == written
    room = video().room
    event = {"format": 1, "kind": "post", "room": record_to_dict(room)}
    assert orjson.loads(encode_event(Event("post", room, message))) == event | {"message": written}
    assert orjson.loads(encode_event(Event("post", room))) == event


def test_derived_fields_are_computed_again_and_not_believed() -> None:
    room = video().room
    written = record_to_dict(room)
    assert record_from_dict(written | dict.fromkeys(DERIVED, "nonsense")) == room
    assert record_from_dict({name: value for name, value in written.items() if name not in DERIVED}) == room


def _records() -> Iterator[dict[str, Any]]:
    asked = text(60)
    asked.do(RequestVideo(2))
    ended = video(60)
    ended.do(End(EndReason.HANGUP))
    for room in (asked.room, ended.room):
        yield orjson.loads(encode_record(room))


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Where a JSON value can be broken: itself and everything in it."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from _paths(value[name], (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _copy(value: object) -> Any:
    return orjson.loads(orjson.dumps(value))


def _put(value: object, path: Path, junk: object) -> object:
    if not path:
        return junk
    broken = _copy(value)
    _at(broken, path[:-1])[path[-1]] = junk
    return broken


def _drop(value: object, path: Path) -> object:
    broken = _copy(value)
    del _at(broken, path[:-1])[path[-1]]
    return broken


def _is_derived(path: Path) -> bool:
    return path[-1:] != () and path[-1] in DERIVED


@pytest.mark.parametrize("record", list(_records()))
def test_a_record_without_one_of_its_fields_is_refused(record: dict[str, Any]) -> None:
    kept = [path for path in _paths(record) if path and not _is_derived(path)]
    assert len(kept) > 30
    for path in kept:
        with pytest.raises(BadRecord):
            decode_record(orjson.dumps(_drop(record, path)))


@pytest.mark.parametrize("record", list(_records()))
def test_junk_anywhere_in_a_record_is_refused_or_is_a_value_that_fits(record: dict[str, Any]) -> None:
    """What gets through is written back as the very value that was read: no junk is taken for another."""
    refused = 0
    for path in _paths(record):
        for junk in JUNK if not _is_derived(path) else []:
            broken = _put(record, path, junk)
            try:
                room = decode_record(orjson.dumps(broken))
            except BadRecord:
                refused += 1
                continue
            written = orjson.loads(encode_record(room))
            assert _at(written, path) == junk
            assert type(_at(written, path)) is type(junk)
    assert refused > 300


ROOM_JUNK: list[tuple[str, list[object]]] = [
    ("format", [None, True, 0, 1.0, 2, "1"]),
    ("room_id", [None, "", 7, ["x"]]),
    ("user_1", [None, "", 7]),
    ("user_2", [None, "", 7]),
    ("chat_mode", [None, "audio", 1, "VIDEO", ["video"]]),
    ("duration_seconds", [None, -1, True, 1.5, "60"]),
    ("opened_at", [None, -1, True, 1.5, "1"]),
    ("updated_at", [None, -1, False, 1.5, "1"]),
    ("waiting_from", [None, -1, False, 1.5, "1"]),
    ("version", [None, 0, True, 1.5, "1"]),
    ("write_id", [None, 1, ["x"]]),
    ("met_at", [-1, True, 1.5, "1"]),
    ("timed_from", [-1, True, 1.5, "1"]),
    ("ending_warned", [None, 0, 1, "true"]),
    ("last_seq", [None, -1, True, 1.5, "1"]),
    ("mode_requested_by", [0, 3, True, 1.0, "1"]),
    ("warning_started_at", [-1, True, 1.5, "1"]),
    ("ended_at", [-1, True, 1.5, "1"]),
    ("ended_reason", ["bored", 1, True]),
    ("sides", [None, [], {}, "ab", {"0": {}, "1": {}}]),
]
SIDE_JUNK: list[tuple[str, list[object]]] = [
    ("node", ["", 1, True, []]),
    ("session", ["", 1, True, []]),
    ("came", [None, 0, 1, "true"]),
    ("left", [None, 0, 1, "true"]),
    ("absent_since", [-1, True, 1.5, "1"]),
    ("grace_until", [-1, True, 1.5, "1"]),
    ("idle_from", [-1, True, 1.5, "1"]),
    ("last_message_at", [-1, True, 1.5, "1"]),
]


@pytest.mark.parametrize(("name", "junk"), ROOM_JUNK)
def test_a_field_of_the_wrong_kind_is_refused_by_name(name: str, junk: list[object]) -> None:
    record = record_to_dict(text().room)
    for value in junk:
        with pytest.raises(BadRecord, match=name):
            decode_record(orjson.dumps(record | {name: value}))


@pytest.mark.parametrize(("name", "junk"), SIDE_JUNK)
@pytest.mark.parametrize("index", [0, 1])
def test_a_field_of_the_wrong_kind_in_a_side_is_refused_by_name(
    name: str, junk: list[object], index: int
) -> None:
    record = _copy(record_to_dict(text().room))
    for value in junk:
        with pytest.raises(BadRecord, match=f"a side of a room: .*{name}"):
            decode_record(orjson.dumps(_put(record, ("sides", index, name), value)))


def test_a_record_has_two_sides_neither_fewer_nor_more() -> None:
    record = record_to_dict(text().room)
    side = record["sides"][0]
    for sides in ([side], [side, side, side]):
        with pytest.raises(BadRecord, match="sides"):
            record_from_dict(record | {"sides": sides})


@pytest.mark.parametrize("side", [None, 1, "ab", [], ["node"], {}])
def test_a_side_is_an_object_with_its_fields(side: object) -> None:
    record = record_to_dict(text().room)
    for sides in ([side, record["sides"][1]], [record["sides"][0], side]):
        with pytest.raises(BadRecord, match="not a side of a room"):
            record_from_dict(record | {"sides": sides})


@pytest.mark.parametrize("half", [{"ended_at": T0}, {"ended_reason": "hangup"}])
def test_an_end_has_both_a_time_and_a_reason(half: dict[str, object]) -> None:
    with pytest.raises(BadRecord, match="ended_at and ended_reason"):
        record_from_dict(record_to_dict(text().room) | half)


def test_a_number_too_large_for_json_readers_is_refused() -> None:
    written = encode_record(text().room)
    with pytest.raises(BadRecord, match="opened_at"):
        decode_record(written.replace(f'"opened_at":{T0}'.encode(), b'"opened_at":18446744073709551616'))


NOT_RECORDS = [
    b"",
    b"{",
    b"null",
    b"1",
    b'"x"',
    b"[]",
    b"[{}]",
    b"{}",
    b"\xff\xfe",
    b"NaN",
    "",
    "{\ud800}",
    b"[" * 2_000,
]


@pytest.mark.parametrize("data", NOT_RECORDS)
def test_what_is_no_json_object_is_neither_a_record_nor_a_message_nor_an_event(data: bytes | str) -> None:
    for decode in (decode_record, decode_message, decode_event):
        with pytest.raises(BadRecord):
            decode(data)


@random_lives
@given(rooms(), st.data())
def test_a_record_cut_short_is_refused(room: Room, data: st.DataObject) -> None:
    written = encode_record(room)
    with pytest.raises(BadRecord):
        decode_record(written[: data.draw(st.integers(0, len(written) - 1))])


def test_every_broken_message_is_refused() -> None:
    message = {"seq": 1, "from": USER_1, "text": "secret", "at": T0}
    junk: dict[str, list[object]] = {
        "seq": [None, 0, True, 1.5, "1"],
        "from": [None, "", 1],
        "text": [None, 1, ["secret"]],
        "at": [None, -1, True, 1.5],
    }
    for name, values in junk.items():
        with pytest.raises(BadRecord, match=name):
            decode_message(orjson.dumps(_drop(message, (name,))))
        for value in values:
            with pytest.raises(BadRecord, match=name) as refused:
                decode_message(orjson.dumps(message | {name: value}))
            assert "secret" not in str(refused.value)


def test_every_broken_event_is_refused() -> None:
    event = orjson.loads(encode_event(Event("post", text().room, Message(1, USER_1, "hi", T0))))
    junk: dict[str, list[object]] = {
        "format": [None, True, 1.0, 0, 2, "1"],
        "kind": [None, "", 1, ["post"]],
        "room": [None, 1, "x", [], {}],
        "message": [1, True, "x", [], {}, [1]],
    }
    for name in ("format", "kind", "room"):
        with pytest.raises(BadRecord):
            decode_event(orjson.dumps(_drop(event, (name,))))
    for name, values in junk.items():
        for value in values:
            with pytest.raises(BadRecord):
                decode_event(orjson.dumps(event | {name: value}))


def test_an_event_of_a_later_format_says_so() -> None:
    event = orjson.loads(encode_event(Event("post", text().room)))
    with pytest.raises(BadRecord, match="an event of format 2; this release reads format 1"):
        decode_event(orjson.dumps(event | {"format": 2}))

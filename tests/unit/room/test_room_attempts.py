"""The event about failed logins: written, told from others, read again, and which of two counts."""

import json
from typing import Any

import pytest

from keepline.room.attempts import KIND, Attempts, decode_attempts, encode_attempts
from keepline.room.codec import BadRecord, Event, decode_event, encode_event
from keepline.room.kinds import kind_of
from tests.unit.room.calls import video

ATTEMPTS = Attempts("2001:db8:1:2::/64", 3, 1_767_225_600_000, 1_767_225_660_000, 1_767_226_260_000)


def test_what_is_written_is_read_again() -> None:
    assert decode_attempts(encode_attempts(ATTEMPTS)) == ATTEMPTS


def test_it_is_told_from_an_event_about_a_room() -> None:
    room = encode_event(Event("open", video().room))
    assert kind_of(encode_attempts(ATTEMPTS)) == KIND
    assert kind_of(room) == "open"
    with pytest.raises(BadRecord):
        decode_attempts(room)
    with pytest.raises(BadRecord):
        decode_event(encode_attempts(ATTEMPTS))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "open"},
        {"address": None},
        {"attempts": "3"},
        {"attempts": True},
        {"first_at": -1},
        {"last_at": 1.5},
        {"expires_at": None},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    raw = json.loads(encode_attempts(ATTEMPTS))
    with pytest.raises(BadRecord):
        decode_attempts(json.dumps(raw | change))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_attempts(data)


def test_the_later_count_is_the_newer_one() -> None:
    later = Attempts(ATTEMPTS.address, 2, ATTEMPTS.first_at, ATTEMPTS.last_at + 1, ATTEMPTS.expires_at + 1)
    more = Attempts(ATTEMPTS.address, 4, ATTEMPTS.first_at, ATTEMPTS.last_at, ATTEMPTS.expires_at)
    assert later.is_newer_than(ATTEMPTS)
    assert more.is_newer_than(ATTEMPTS)
    assert not ATTEMPTS.is_newer_than(later)
    assert not ATTEMPTS.is_newer_than(ATTEMPTS)

"""Records and events as each release has written them: all that come after read them, and lose nothing of them.

When a release is made, a folder is added with what it writes; nothing in an old folder is changed.
"""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from keepline.room.codec import decode_event, decode_record, encode_event, encode_record
from keepline.room.rows import to_row
from tests.unit.room.calls import T0

FOLDER = Path(__file__).parent / "releases"
CHANGELOG = Path(__file__).parents[3] / "CHANGELOG.md"
RELEASES = sorted(path.name for path in FOLDER.iterdir())

FIRST = {
    "version", "room_id", "duration_seconds", "opened_at", "updated_at", "waiting_from", "write_id", "met_at", "sides",
    "timed_from", "ending_warned", "last_seq", "mode_requested_by", "warning_started_at", "ended_at", "chat_mode",
}  # fmt: skip


def lines(release: str, name: str) -> list[bytes]:
    return (FOLDER / release / f"{name}.jsonl").read_bytes().splitlines()


def test_every_release_has_its_folder() -> None:
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(released) <= set(RELEASES)
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_records_of_a_release_are_read_whole(release: str) -> None:
    records = lines(release, "records")
    assert len(records) > 5
    for record in records:
        room, raw = decode_record(record), orjson.loads(record)
        again = orjson.loads(encode_record(room))
        assert {name: again[name] for name in raw} == raw, "what was written then is written still"
        assert room.opened_at == T0
        assert to_row(room).version == room.version


@pytest.mark.parametrize("release", RELEASES)
def test_events_of_a_release_are_read_whole(release: str) -> None:
    events = [decode_event(event) for event in lines(release, "events")]
    assert {event.kind for event in events} >= {"join", "post", "end"}
    assert [event.message.text for event in events if event.message] == ["hello"]
    for event, written in zip(events, lines(release, "events"), strict=True):
        raw, again = orjson.loads(written), orjson.loads(encode_event(event))
        assert {name: again["room"][name] for name in raw["room"]} == raw["room"]


def test_the_fields_of_the_first_release_are_all_there() -> None:
    for record in lines("0.1.0", "records"):
        assert orjson.loads(record).keys() >= FIRST

"""The ids of writes in a record: each writer's last one is found again, and only so many are kept."""

from __future__ import annotations

from keepline.room.codec import decode_record, encode_record
from keepline.room.record import Room
from keepline.room.writes import MAX_WRITERS, has_write, node_of, write_ids, written
from tests.unit.room.calls import text

ROOM = text().room


def history(*writes: str) -> Room:
    """A record that these writes made, one after the other."""
    room = written(None, ROOM, writes[0])
    for write_id in writes[1:]:
        room = written(room, room, write_id)
    return room


def test_ids_name_their_node_and_are_never_the_same() -> None:
    ids, other_life = write_ids("node-1", "3f9a"), write_ids("node-1", "77b0")
    made = [ids(), ids(), other_life()]
    assert len(set(made)) == 3
    assert {node_of(each) for each in made} == {"node-1"}


def test_a_write_is_found_however_many_others_made_after_it() -> None:
    room = history("a:1:1", *[f"b:1:{count}" for count in range(1, 100)])
    assert has_write(room, "a:1:1")
    assert has_write(room, "b:1:99")
    assert room.earlier_writes == ("a:1:1",)


def test_of_one_writer_only_the_last_write_is_named() -> None:
    """It has one under way at a time: the answer to the one before is known."""
    room = history("a:1:1", "b:1:1", "a:1:2")
    assert not has_write(room, "a:1:1")
    assert (room.write_id, room.earlier_writes) == ("a:1:2", ("b:1:1",))


def test_two_lives_of_a_node_are_two_writers() -> None:
    assert has_write(history("a:1:7", "a:2:1"), "a:1:7")


def test_only_so_many_writers_are_named_and_the_oldest_give_way() -> None:
    room = history(*[f"node-{number}:1:1" for number in range(MAX_WRITERS + 3)])
    named = [*room.earlier_writes, room.write_id]
    assert named == [f"node-{number}:1:1" for number in range(3, MAX_WRITERS + 3)]


def test_a_record_without_writes_before_it_is_written_as_ever() -> None:
    assert b"earlier_writes" not in encode_record(history("a:1:1"))
    room = history("a:1:1", "b:1:1")
    assert b'"earlier_writes":["a:1:1"]' in encode_record(room)
    assert decode_record(encode_record(room)) == room

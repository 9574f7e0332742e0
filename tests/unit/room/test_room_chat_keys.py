"""A line of chat with a key is written once, however often it is asked for."""

from __future__ import annotations

import orjson
import pytest

from keepline.room.chat_keys import MAX_CHAT_KEYS, seq_of
from keepline.room.codec import decode_record, encode_message, encode_record
from keepline.room.commands import End, Post
from keepline.room.effects import Posted
from keepline.room.record import EndReason, Message, SideNumber
from keepline.room.rows import from_row, to_row
from keepline.room.state import IllegalTransition
from tests.unit.room.calls import T0, USER_1, USER_2, text


@pytest.mark.parametrize("again", [Post(1, "hi", "k"), Post(1, "another text", "k"), Post(2, "hi", "k")])
def test_the_same_key_is_the_same_line(again: Post) -> None:
    call = text()
    assert call.do(Post(1, "hi", "k")) == (Posted(2, Message(1, USER_1, "hi", T0, "k")),)
    before = call.at(5_000).room
    assert call.do(again) == ()
    assert call.room is before
    assert seq_of(call.room, "k") == 1


def test_lines_without_a_key_are_always_new() -> None:
    call = text()
    call.post(1, "hi")
    call.post(1, "hi")
    assert call.room.last_seq == 2


def test_each_side_has_a_list_of_its_own_so_that_the_other_cannot_push_its_keys_out() -> None:
    call = text()
    call.do(Post(1, "mine", "mine"))
    for number in range(3 * MAX_CHAT_KEYS):
        call.do(Post(2, "spam", f"{number}"))
    assert call.do(Post(1, "mine", "mine")) == ()
    assert [len(side.chat_keys) for side in call.room.sides] == [1, MAX_CHAT_KEYS]
    assert seq_of(call.room, f"{2 * MAX_CHAT_KEYS - 1}") is None
    assert seq_of(call.room, f"{2 * MAX_CHAT_KEYS}") == 2 * MAX_CHAT_KEYS + 2


def test_a_key_of_a_room_that_has_ended_is_still_known_to_its_record() -> None:
    call = text()
    call.do(Post(1, "hi", "k"))
    call.do(End(EndReason.HANGUP))
    with pytest.raises(IllegalTransition):
        call.do(Post(1, "hi", "k"))
    assert seq_of(decode_record(encode_record(call.room)), "k") == 1


@pytest.mark.parametrize("side", [1, 2])
def test_a_room_that_comes_back_from_postgres_knows_the_keys_of_its_lines(side: SideNumber) -> None:
    call = text()
    lines: list[Message] = []
    for number in range(MAX_CHAT_KEYS + 8):
        told = call.do(Post(side, "hi", f"{number}" if number % 2 else None))
        lines += [effect.message for effect in told if isinstance(effect, Posted)]
    row = to_row(call.room)
    columns = {name: getattr(row, name) for name in row.__struct_fields__} | {"updated_at": row.created_at}
    assert [back.chat_keys for back in from_row(columns, lines).sides] == [
        known.chat_keys for known in call.room.sides
    ]


def test_a_line_without_a_key_is_written_as_before() -> None:
    assert orjson.loads(encode_message(Message(1, USER_2, "hi", T0))) == {
        "seq": 1,
        "from": USER_2,
        "text": "hi",
        "at": T0,
    }
    assert orjson.loads(encode_message(Message(1, USER_2, "hi", T0, "k")))["key"] == "k"

"""Where commands belong on a cluster."""

from typing import Any

import pytest
from redis.crc import key_slot

from keepline.ops.redis.slots import SlotView, slot_of, view_in


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "{p07}:x"),
        ("GET", b"{p07}:x"),
        ("XINFO GROUPS", "{p07}:events"),
        ("SPUBLISH", "{p07}:inbox:node", b"data"),
        ("EVALSHA", "digest", 2, "{p07}:x", "{p07}:y", "argument"),
        ("EVAL", "return 1", "1", "{p07}:x"),
        ("XREADGROUP", b"GROUP", "group", "me", b"COUNT", "1", b"STREAMS", "{p07}:events", ">"),
    ],
)
def test_a_command_belongs_where_its_first_key_is(command: tuple[Any, ...]) -> None:
    assert slot_of(command) == key_slot(b"p07")


def test_the_time_is_always_the_same_servers() -> None:
    assert slot_of(("TIME",)) == 0


@pytest.mark.parametrize("command", [("DBSIZE",), ("PING", "word"), ("SCRIPT LOAD", "return 1")])
def test_what_has_no_key_belongs_nowhere(command: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"{command[0]} has no key"):
        slot_of(command)


def test_a_view_of_the_cluster() -> None:
    slots: list[list[Any]] = [
        [8192, 16383, [b"two", 7001, b"id-2", []]],
        [0, 8191, [b"", 7000, b"id-1", []], [b"three", 7002, b"id-3", []]],
    ]
    one = ("asked", 7000)
    assert view_in(slots, ("asked", 1)) == SlotView(
        ((0, 8191, one), (8192, 16383, ("two", 7001))),
        frozenset({one, ("two", 7001), ("three", 7002)}),
    )

"""Key names are a contract with every running release: they are spelled out here once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from keepline.room import keys
from tests.unit.room.histories import random_lives

ROOM = "7f4e6f0e-3a5f-4a6e-9d53-0c2d5f6f7a01"


@pytest.fixture
def use_prefix() -> Iterator[Callable[[str], None]]:
    yield keys.use_prefix
    keys.use_prefix(keys.DEFAULT_PREFIX)


@pytest.mark.parametrize("prefix", ["keepline:", "a-b.c:", ""])
def test_keys_are_spelled_as_documented(use_prefix: Callable[[str], None], prefix: str) -> None:
    use_prefix(prefix)
    assert keys.room(7, ROOM) == f"{prefix}{{p07}}:room:{ROOM}"
    assert keys.chat(7, ROOM) == f"{prefix}{{p07}}:chat:{ROOM}"
    assert keys.trace(7, ROOM) == f"{prefix}{{p07}}:trace:{ROOM}"
    assert keys.events(7) == prefix + "{p07}:events"
    assert keys.dead_letters(7) == prefix + "{p07}:dead-letters"
    assert keys.deadlines(7) == prefix + "{p07}:deadlines"
    assert keys.held(7, "node-1") == prefix + "{p07}:held:node-1"
    assert keys.epoch(7) == prefix + "{p07}:epoch"
    assert keys.lease(7, "reap") == prefix + "{p07}:lease:reap"
    assert keys.restored(7) == prefix + "{p07}:restored"
    assert keys.referral(7, "c") == prefix + "{p07}:referral:c"
    assert keys.reports(7, ROOM, "u") == f"{prefix}{{p07}}:limit:report:{ROOM}:u"
    assert keys.failed_logins(7, "::1") == prefix + "{p07}:limit:login:::1"
    assert keys.open_connections(7, "::1") == prefix + "{p07}:limit:conn:::1"
    assert keys.nodes() == prefix + "nodes"
    assert keys.inbox("node-1") == prefix + "inbox:node-1"
    assert keys.inbox("node-1", 7) == prefix + "{p07}:inbox:node-1"
    assert keys.user("u") == prefix + "user:u"
    assert keys.user_rooms("u") == prefix + "user:u:rooms"
    assert keys.node("node-1") == prefix + "node:node-1"
    assert keys.partitions() == (prefix or "keepline:") + "partitions"
    assert keys.DEFAULT_PARTITIONS == 16


@pytest.mark.parametrize("prefix", ["keepline:", "a-b.c:", ""])
def test_patterns_find_the_keys_that_they_name(use_prefix: Callable[[str], None], prefix: str) -> None:
    use_prefix(prefix)
    assert fnmatchcase(keys.room(7, ROOM), keys.all_rooms())
    assert fnmatchcase(keys.held(7, "node-1"), keys.all_held())
    assert fnmatchcase(keys.user("u"), keys.all_users())
    assert [keys.user_in(name) for name in (keys.user("u"), keys.user_rooms("u"))] == ["u", "u"]


def test_the_names_of_the_first_releases_are_those_without_a_prefix(
    use_prefix: Callable[[str], None],
) -> None:
    use_prefix("")
    assert (keys.epoch(0), keys.nodes()) == (keys.UNPREFIXED_EPOCH, keys.UNPREFIXED_NODES)
    assert keys.unprefixed_node("node-1") == keys.node("node-1")
    assert fnmatchcase(keys.room(7, ROOM), keys.UNPREFIXED_ROOMS)
    assert fnmatchcase(keys.user("u"), keys.UNPREFIXED_USERS)


def test_tags_have_two_digits_or_more() -> None:
    assert [keys.tag(partition) for partition in (0, 9, 15, 99, 100)] == [
        "{p00}",
        "{p09}",
        "{p15}",
        "{p99}",
        "{p100}",
    ]


def test_every_key_of_a_room_lives_on_the_shard_of_its_partition() -> None:
    slots = {
        key_slot(key.encode())
        for key in (
            keys.tag(3),
            keys.room(3, ROOM),
            keys.chat(3, ROOM),
            keys.events(3),
            keys.dead_letters(3),
            keys.deadlines(3),
            keys.held(3, "node-1"),
            keys.epoch(3),
            keys.lease(3, "reap"),
            keys.restored(3),
            keys.inbox("node-1", 3),
        )
    }
    assert slots == {key_slot(b"p03")}


def test_the_names_of_many_rooms_are_those_of_each() -> None:
    ids = [ROOM, "größe", ROOM[::-1]]
    assert keys.rooms(ids, 7) == [keys.room(keys.partition_of(room_id, 7), room_id) for room_id in ids]


@pytest.mark.parametrize(
    ("text", "crc"),
    [
        ("123456789", 0x31C3),  # the check value of CRC-16/XMODEM, named in the Redis Cluster specification
        ("", 0),
        ("foo", 44_950),
        (ROOM, 32_230),
        ("größe", 9_425),
    ],
)
def test_the_partition_of_a_room_is_the_same_in_every_release(text: str, crc: int) -> None:
    assert keys.partition_of(text, 65_536) == crc
    assert keys.partition_of(text, 16) == crc % 16
    assert keys.partition_of(text, 7) == crc % 7


@random_lives
@given(st.text(st.characters(exclude_characters="{}", codec="utf-8")))
def test_the_checksum_is_that_of_redis_cluster(room_id: str) -> None:
    assert keys.partition_of(room_id, 16_384) == key_slot(room_id.encode())

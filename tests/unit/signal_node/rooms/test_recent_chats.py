"""Long chats are read once, as long as nobody writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

from msgspec.structs import replace

from keepline.ops.redis.batches import Batches
from keepline.room.codec import encode_message
from keepline.room.record import Message, Room
from keepline.room.rules import MAX_MESSAGES
from signal_node.rooms.lookups import Lookups
from signal_node.rooms.reading import Reader
from signal_node.rooms.recent_chats import LONG, RecentChats
from tests.unit.signal_node.calls import ROOM, T0, USER_1, met


class Redis:
    """A chat of so many lines, and how often it was read."""

    def __init__(self) -> None:
        self.lines = LONG
        self.reads = 0

    def ask(self, *command: str) -> Awaitable[Any]:
        self.reads += 1
        answer = asyncio.get_running_loop().create_future()
        answer.set_result([(b"", {b"message": encode_message(line)}) for line in written(1, self.lines)])
        return answer


def written(first: int, last: int) -> list[Message]:
    return [Message(seq, USER_1, "x" * 100, T0) for seq in range(first, last + 1)]


def room(last_seq: int, room_id: str = ROOM) -> Room:
    return replace(met(), room_id=room_id, last_seq=last_seq)


async def test_an_unchanged_chat_is_read_once() -> None:
    redis = Redis()
    lookups = Lookups(cast(Batches, redis), Reader(), 16)
    for last_seq, reads in ((LONG, 1), (LONG, 1), (LONG + 1, 2), (LONG + 1, 2)):
        redis.lines = last_seq
        now = room(last_seq)
        assert list(await lookups.chat_in(lookups.ask_chat(now), now)) == written(1, last_seq)
        assert redis.reads == reads


async def test_a_short_chat_is_read_again() -> None:
    redis = Redis()
    redis.lines = LONG - 1
    lookups = Lookups(cast(Batches, redis), Reader(), 16)
    for reads in (1, 2):
        await lookups.chat_in(lookups.ask_chat(room(LONG - 1)), room(LONG - 1))
        assert redis.reads == reads


def test_a_chat_with_a_hole_is_not_kept() -> None:
    chats = RecentChats()
    chats.keep(room(LONG + 2), [*written(1, LONG), *written(LONG + 2, LONG + 2)])
    assert chats.of(room(LONG + 2)) is None
    last = MAX_MESSAGES + 7
    chats.keep(room(last), written(8, last))
    assert chats.of(room(last)) is not None, "of which the first lines are not kept anywhere"


def test_chats_take_so_much_memory_and_no_more() -> None:
    chats = RecentChats(max_bytes=3 * LONG * 600)
    rooms = [room(LONG, f"room-{number}") for number in range(4)]
    for one in rooms[:3]:
        chats.keep(one, written(1, LONG))
    assert chats.of(rooms[0]) is not None, "used last"
    chats.keep(rooms[3], written(1, LONG))
    assert [chats.of(one) is not None for one in rooms] == [True, False, True, True]

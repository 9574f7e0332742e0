"""What may be assumed of the chat that is put back and of the deadlines that are taken, on each server."""

from __future__ import annotations

import pytest

from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.record import Message
from keepline.room.rules import MAX_MESSAGES
from signal_node.rooms.store import RoomStore
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, T0, USER_1

PARTITIONS = 4
PARTITION = keys.partition_of(ROOM, PARTITIONS)
HOUR_MS = 3_600_000


@pytest.fixture
def store(client: Client) -> RoomStore:
    return RoomStore(client, PARTITIONS, 60_000)


def line(seq: int, text: str = "") -> Message:
    return Message(seq, USER_1, text or f"line {seq}", T0)


async def seqs(store: RoomStore) -> list[int]:
    return [message.seq for message in await store.lines_after(ROOM, 0)]


# --- chat ---


async def test_lines_go_where_they_belong(store: RoomStore) -> None:
    assert await store.merge_chat(ROOM, [line(2), line(10)]) == 2
    assert await store.merge_chat(ROOM, [line(11), line(1), line(9), line(2)]) == 3
    assert await seqs(store) == [1, 2, 9, 10, 11]


async def test_lines_that_are_there_stay_as_they_are(store: RoomStore) -> None:
    await store.merge_chat(ROOM, [line(1, "first"), line(2)])
    await store.merge_chat(ROOM, [line(1, "another"), line(3), line(3, "twice")])
    lines = await store.lines_after(ROOM, 0)
    assert [(message.seq, message.text) for message in lines] == [(1, "first"), (2, "line 2"), (3, "line 3")]


async def test_nothing_new_writes_nothing(store: RoomStore, client: Client) -> None:
    await store.merge_chat(ROOM, [])
    assert not await client.exists(keys.chat(PARTITION, ROOM))
    await store.merge_chat(ROOM, [line(1)])
    await client.pexpire(keys.chat(PARTITION, ROOM), HOUR_MS)
    await store.merge_chat(ROOM, [line(1)])
    assert await client.pttl(keys.chat(PARTITION, ROOM)) > 0


async def test_the_oldest_lines_give_way(store: RoomStore) -> None:
    await store.merge_chat(ROOM, [line(seq) for seq in range(3, MAX_MESSAGES + 3)])
    await store.merge_chat(ROOM, [line(1), line(MAX_MESSAGES + 3)])
    assert await seqs(store) == list(range(4, MAX_MESSAGES + 4))


async def test_chat_that_is_put_back_expires_with_its_room(store: RoomStore, client: Client) -> None:
    record, chat = keys.room(PARTITION, ROOM), keys.chat(PARTITION, ROOM)
    await client.set(record, b"a live one")
    await store.merge_chat(ROOM, [line(1)])
    assert await client.pttl(chat) == -1
    await client.set(record, b"a tombstone", px=HOUR_MS)
    await store.merge_chat(ROOM, [line(2)])
    assert 0 < await client.pttl(chat) <= HOUR_MS


async def test_lines_after_one(store: RoomStore) -> None:
    await store.merge_chat(ROOM, [line(seq) for seq in (1, 2, 3)])
    assert [message.seq for message in await store.lines_after(ROOM, 1)] == [2, 3]
    assert await store.lines_after(ROOM, 3) == []
    assert await store.lines_after(OTHER_ROOM, 0) == []


# --- deadlines ---


NOW = 1_790_000_000_000


async def set_deadline(client: Client, room_id: str, at: int) -> None:
    await client.zadd(keys.deadlines(keys.partition_of(room_id, PARTITIONS)), {room_id: at})


async def popped(
    store: RoomStore, *, by: int = NOW, until: int = NOW + HOUR_MS, at_most: int = 10
) -> list[str]:
    return sorted(await store.pop_due([by] * PARTITIONS, until, at_most))


async def test_rooms_that_are_due_are_taken_from_every_partition(store: RoomStore, client: Client) -> None:
    rooms = [f"room-{number}" for number in range(8)]
    assert len({keys.partition_of(room, PARTITIONS) for room in rooms}) > 1
    for room in rooms:
        await set_deadline(client, room, NOW)
    await set_deadline(client, "later", NOW + 1)
    assert await popped(store) == rooms


async def test_the_clock_of_redis_has_no_say(store: RoomStore, client: Client) -> None:
    """Redis' may be set forward; it is the nodes that know."""
    seconds, _ = await client.time()
    await set_deadline(client, ROOM, int(seconds) * 1_000 - HOUR_MS)
    assert await popped(store, by=int(seconds) * 1_000 - 2 * HOUR_MS) == []


async def test_a_room_that_is_taken_is_due_again_after_the_lease(store: RoomStore, client: Client) -> None:
    await set_deadline(client, ROOM, NOW - 1)
    assert await popped(store) == [ROOM]
    assert await popped(store) == []
    assert await client.zscore(keys.deadlines(PARTITION), ROOM) == NOW + HOUR_MS
    assert await popped(store, by=NOW + HOUR_MS) == [ROOM]


async def test_only_what_is_late_for_long_and_only_so_many(store: RoomStore, client: Client) -> None:
    by = [NOW - (HOUR_MS if partition == PARTITION else 0) for partition in range(PARTITIONS)]
    await set_deadline(client, ROOM, NOW - HOUR_MS + 1)
    assert await store.pop_due(by, NOW, 10) == []
    await set_deadline(client, ROOM, NOW - HOUR_MS)
    assert await store.pop_due(by, NOW + 1, 10) == [ROOM]
    rooms = [f"room-{number}" for number in range(40)]
    for room in rooms:
        await set_deadline(client, room, NOW - 1)
    assert len(await popped(store, at_most=2)) == 2 * PARTITIONS


async def test_a_deadline_that_is_cleared_is_not_due(store: RoomStore, client: Client) -> None:
    await set_deadline(client, ROOM, 1)
    await store.clear_deadline(ROOM)
    await store.clear_deadline(ROOM)
    assert await popped(store) == []


async def test_a_server_that_forgot_the_scripts_is_told_again(store: RoomStore, client: Client) -> None:
    await set_deadline(client, ROOM, 1)
    await client.script_flush()
    assert await popped(store) == [ROOM]
    await client.script_flush()
    await store.merge_chat(ROOM, [line(1)])
    assert await seqs(store) == [1]

"""One record that cannot be read stops nothing: it is skipped, counted and logged once."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.codec import BadRecord
from keepline.room.commands import Command, Join, Post
from keepline.room.record import ChatMode, Room
from signal_node.rooms.cache import Audience, Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import Committed, RoomStore
from signal_node.rooms.suspicions import Suspicions
from tests.contract.changes import change
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, RULES, SESSION_1, T0, USER_1, opening

PARTITIONS = 16
THIRD_ROOM = "3" * 36


@pytest.fixture
def store(client: Client) -> RoomStore:
    return RoomStore(client, PARTITIONS, 60_000)


async def stored(store: RoomStore, room_id: str, *commands: Command) -> Room:
    room: Room | None = None
    for command in (opening(room_id, ChatMode.TEXT), Join(1, "node-1", SESSION_1), *commands):
        each = change(room, command)
        assert await store.commit([each]) == [Committed()]
        room = each.after
    assert room is not None
    return room


async def damage(client: Client, room_id: str, record: str = '{"format":99}') -> None:
    await client.set(keys.room(keys.partition_of(room_id, PARTITIONS), room_id), record)


class Cached:
    """The cache of a node that has these rooms."""

    def __init__(self, *rooms: Room) -> None:
        self._rooms = {room.room_id: room for room in rooms}

    def ids(self) -> list[str]:
        return list(self._rooms)

    def stored(self, room_id: str) -> Room:
        return self._rooms[room_id]

    at_rest = stored

    def untold(self, room_id: str) -> tuple[()]:
        return ()

    def lines(self, room_id: str) -> tuple[()]:
        return ()


async def test_the_others_are_read_and_it_is_logged_once(client: Client, store: RoomStore) -> None:
    one, other = await stored(store, ROOM), await stored(store, OTHER_ROOM)
    await damage(client, ROOM)
    with capture_logs() as logs:
        for _ in range(3):
            damaged, read = await store.load_many([ROOM, OTHER_ROOM])
            assert isinstance(damaged, BadRecord)
            assert read == other
            assert isinstance((await store.compare([one, other]))[0], BadRecord)
    assert [(entry["event"], entry["room"]) for entry in logs] == [("room_unreadable", ROOM)]
    assert store.reader.unreadable == 1
    with pytest.raises(BadRecord, match="format 99"):
        await store.load(ROOM)


async def test_a_user_finds_the_other_rooms(client: Client, store: RoomStore) -> None:
    await stored(store, ROOM)
    other = await stored(store, OTHER_ROOM)
    await damage(client, ROOM)
    assert await store.rooms_of(USER_1) == [other]
    await damage(client, ROOM, "")
    assert await store.rooms_of(USER_1) == [other]
    members: Any = await client.smembers(keys.user_rooms(USER_1))
    assert ROOM.encode() in members, "a release that can read it finds it again"


async def test_healing_goes_on_with_the_others(client: Client, store: RoomStore) -> None:
    """Before, the whole comparison was given up and begun again for ever."""
    one, lost, kept = [await stored(store, room_id) for room_id in (ROOM, OTHER_ROOM, THIRD_ROOM)]
    await damage(client, ROOM)
    await client.delete(keys.room(keys.partition_of(OTHER_ROOM, PARTITIONS), OTHER_ROOM))
    rooms = cast(Rooms, Cached(one, lost, kept))
    reconciler = Reconciler("node-1", rooms, Suspicions(), store, cast(Audience, None), RULES, lambda: T0)
    await reconciler.reconcile([ROOM, OTHER_ROOM, THIRD_ROOM], suspected=True)
    assert (await store.load_many([OTHER_ROOM, THIRD_ROOM])) == [lost, kept]
    assert reconciler.counts.put_back == 1


async def test_a_line_of_chat_that_cannot_be_read_hides_no_other(client: Client, store: RoomStore) -> None:
    room = await stored(store, ROOM, Post(1, "a"))
    chat = keys.chat(keys.partition_of(ROOM, PARTITIONS), ROOM)
    await client.xadd(chat, {"message": "{"}, id="2-0")
    await client.xadd(chat, {"other": "field"}, id="3-0")
    found, lines = await store.load(ROOM)
    assert found == room
    assert [line.text for line in lines] == ["a"]
    assert [line.text for line in await store.lines_after(ROOM, 0)] == ["a"]
    assert store.reader.unreadable == 1

"""What may be assumed of `RoomStore.commit`, on each server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from redis.crc import key_slot

from keepline.ops.redis.client import Client, connect, servers
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from keepline.room.codec import Event, decode_event, decode_record
from keepline.room.commands import Command, End, Join, Leave, Lose, Post
from keepline.room.record import ChatMode, EndReason, Message, Room
from keepline.room.rules import MAX_MESSAGES
from signal_node.rooms.store import Change, Committed, Conflict, Failed, RoomStore
from signal_node.rooms.tombstones import LEFT_OVER_MS
from tests.contract.changes import change, contents
from tests.contract.conftest import RedisServer
from tests.helpers.ports import free_port
from tests.unit.signal_node.calls import (
    OTHER_ROOM,
    ROOM,
    RULES,
    SESSION_1,
    SESSION_2,
    T0,
    USER_1,
    USER_2,
    opening,
)

PARTITIONS = 16
TOMBSTONE_MS = 60_000
PARTITION = keys.partition_of(ROOM, PARTITIONS)
RECORD = keys.room(PARTITION, ROOM)
CHAT = keys.chat(PARTITION, ROOM)
EVENTS = keys.events(PARTITION)
DEADLINES = keys.deadlines(PARTITION)
HANGUP = End(EndReason.HANGUP)


@pytest.fixture
def store(client: Client) -> RoomStore:
    return RoomStore(client, PARTITIONS, TOMBSTONE_MS)


async def commit(store: RoomStore, *changes: Change) -> Room:
    """Commit changes one after the other, all of which succeed; returns the last record."""
    for each in changes:
        assert await store.commit([each]) == [Committed()]
    return changes[-1].after


async def carry_out(store: RoomStore, room: Room | None, *commands: Command) -> Room:
    """Commit what the commands make of the room."""
    for command in commands:
        room = await commit(store, change(room, command))
    assert room is not None
    return room


async def text_room(store: RoomStore) -> Room:
    """A text room with a side on each of two nodes."""
    joins = Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2)
    return await carry_out(store, None, opening(chat_mode=ChatMode.TEXT), *joins)


async def record(client: Client) -> Room:
    found = await client.get(RECORD)
    assert found is not None
    return decode_record(found)


async def events(client: Any) -> list[Event]:
    return [decode_event(fields[b"event"]) for _, fields in await client.xrange(EVENTS)]


@asynccontextmanager
async def inbox(server: RedisServer, node: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """What is published to a node's inbox."""
    heard = asyncio.Queue[bytes]()

    async def listen(ready: asyncio.Event) -> None:
        async with server.listening(node, PARTITION) as pubsub:
            async for message in pubsub.listen():
                if message["type"] in ("message", "smessage"):
                    heard.put_nowait(message["data"])
                else:
                    ready.set()

    ready = asyncio.Event()
    task = asyncio.create_task(listen(ready))
    try:
        async with asyncio.timeout(10):
            await ready.wait()
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_of(heard: asyncio.Queue[bytes]) -> bytes:
    async with asyncio.timeout(10):
        return await heard.get()


# --- what is stored ---


async def test_a_new_room(store: RoomStore, client: Client) -> None:
    opened = change(None, opening())
    room = await commit(store, opened)
    assert opened.due_at == T0 + RULES.no_show_ms
    assert await record(client) == room
    assert await client.zscore(DEADLINES, ROOM) == opened.due_at
    (event,) = await events(client)
    assert (event.kind, event.room, event.message) == ("open", room, None)
    for user in (USER_1, USER_2):
        assert await client.smembers(keys.user_rooms(user)) == {ROOM.encode()}
        assert await client.ttl(keys.user_rooms(user)) > 0
    assert not await client.exists(CHAT)
    assert await client.pttl(RECORD) == -1


async def test_each_version_follows_the_one_before(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    room = await carry_out(store, room, Post(1, "a"), Post(2, "b"))
    assert room.version == 5
    assert await record(client) == room
    told = await events(client)
    assert [event.room.version for event in told] == [1, 2, 3, 4, 5]
    assert [event.kind for event in told] == ["open", "join", "join", "post", "post"]
    assert [event.message and event.message.text for event in told] == [None, None, None, "a", "b"]
    loaded, lines = await store.load(ROOM)
    assert loaded == room
    assert [(line.seq, line.sender, line.text) for line in lines] == [(1, USER_1, "a"), (2, USER_2, "b")]


async def test_the_nodes_that_hold_a_side_are_noted(store: RoomStore, client: Client) -> None:
    async def holders() -> list[str]:
        nodes = ("node-1", "node-2", "node-3")
        return [node for node in nodes if await client.sismember(keys.held(PARTITION, node), ROOM)]

    room = await text_room(store)
    assert await holders() == ["node-1", "node-2"]
    room = await carry_out(store, room, Join(1, "node-3", "new"))
    assert await holders() == ["node-2", "node-3"]
    room = await carry_out(store, room, Join(2, "node-3", "new-too"))
    assert await holders() == ["node-3"]
    room = await carry_out(store, room, Lose(1, "new"))
    assert await holders() == ["node-3"]
    await carry_out(store, room, Leave(2, "new-too"))
    assert await holders() == []


async def test_the_deadline_moves_with_the_room_and_goes_with_it(store: RoomStore, client: Client) -> None:
    room = await commit(store, change(None, opening()))
    assert await client.zscore(DEADLINES, ROOM) == T0 + RULES.no_show_ms
    joins = Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2)
    room = await carry_out(store, room, *joins)
    assert await client.zscore(DEADLINES, ROOM) is None, "an endless video call waits for nothing"
    room = await carry_out(store, room, Lose(1, SESSION_1))
    assert await client.zscore(DEADLINES, ROOM) == T0 + RULES.grace_ms
    await carry_out(store, room, HANGUP)
    assert await client.zscore(DEADLINES, ROOM) is None


async def test_an_ended_room_stays_for_a_while(store: RoomStore, client: Client) -> None:
    room = await carry_out(store, await text_room(store), Post(1, "a"))
    assert [await client.pttl(key) for key in (RECORD, CHAT)] == [-1, -1]
    await carry_out(store, room, HANGUP)
    for key in (RECORD, CHAT):
        assert LEFT_OVER_MS < await client.pttl(key) <= TOMBSTONE_MS + LEFT_OVER_MS
    for user in (USER_1, USER_2):
        assert not await client.exists(keys.user_rooms(user))
    assert await store.rooms_of(USER_1) == []


async def test_the_rooms_of_a_user_that_have_not_ended(store: RoomStore) -> None:
    room = await text_room(store)
    other = await commit(store, change(None, opening(OTHER_ROOM)))
    assert sorted(found.room_id for found in await store.rooms_of(USER_2)) == sorted([ROOM, OTHER_ROOM])
    await carry_out(store, room, HANGUP)
    assert await store.rooms_of(USER_2) == [other]


async def test_only_so_much_chat_is_kept(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    lines = [Message(seq, USER_1, f"line {seq}", T0) for seq in range(1, MAX_MESSAGES + 1)]
    await store.merge_chat(ROOM, lines)
    assert await client.xlen(CHAT) == MAX_MESSAGES
    posts = change(_with_last_seq(room, MAX_MESSAGES), Post(1, "one more"))
    await commit(store, posts)
    _, kept = await store.load(ROOM)
    assert [line.seq for line in kept] == list(range(2, MAX_MESSAGES + 2))
    assert kept[-1].text == "one more"


def _with_last_seq(room: Room, seq: int) -> Room:
    return replace(room, last_seq=seq)


# --- all or nothing ---


async def test_on_a_conflict_the_newer_record_is_returned_and_nothing_is_done(
    redis_server: RedisServer, store: RoomStore, client: Client
) -> None:
    old = await text_room(store)
    newer = await carry_out(store, old, Post(2, "first"))
    before = await contents(client)
    async with inbox(redis_server, "node-2") as heard:
        late = change(old, Post(1, "second"), notices={"node-2": b"never"})
        assert await store.commit([late]) == [Conflict(newer)]
        assert await contents(client) == before
        await commit(store, change(newer, Post(1, "second"), notices={"node-2": b"now"}))
        assert await next_of(heard) == b"now"


async def test_a_version_that_is_ahead_of_redis_is_a_conflict_too(store: RoomStore, client: Client) -> None:
    stored = await text_room(store)
    ahead = change(stored, Post(1, "lost by a failover")).after
    before = await contents(client)
    assert await store.commit([change(ahead, Post(1, "next"))]) == [Conflict(stored)]
    assert await contents(client) == before


async def test_a_record_that_is_gone_is_a_conflict_with_nothing(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    await client.delete(RECORD)
    before = await contents(client)
    assert await store.commit([change(room, Post(1, "a"))]) == [Conflict(None)]
    assert await contents(client) == before


async def test_a_room_is_opened_once(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    before = await contents(client)
    assert await store.commit([change(None, opening())]) == [Conflict(room)]
    after = await contents(client)
    assert {key: after[key] for key in before} == before


async def test_the_same_write_again_is_done_and_does_nothing_more(
    redis_server: RedisServer, store: RoomStore, client: Client
) -> None:
    room = await text_room(store)
    posted = change(room, Post(1, "a"), notices={"node-2": b"once"})
    async with inbox(redis_server, "node-2") as heard:
        await commit(store, posted)
        before = await contents(client)
        await commit(store, posted, posted)
        assert await contents(client) == before
        await commit(store, change(posted.after, HANGUP, notices={"node-2": b"end"}))
        assert [await next_of(heard), await next_of(heard)] == [b"once", b"end"]


async def test_the_same_change_by_another_node_is_not_the_same_write(store: RoomStore) -> None:
    room = await text_room(store)
    first, second = change(room, Post(1, "a")), change(room, Post(1, "a"))
    assert await store.commit([first]) == [Committed()]
    assert await store.commit([second]) == [Conflict(first.after)]


@pytest.mark.parametrize(
    ("key", "command"),
    [
        *((key, Post(1, "b")) for key in (RECORD, EVENTS, DEADLINES, CHAT, keys.held(PARTITION, "node-2"))),
        (keys.held(PARTITION, "node-3"), Lose(1, "new")),
    ],
)
async def test_what_redis_cannot_do_in_part_it_does_not_do_at_all(
    store: RoomStore, client: Client, key: str, command: Command
) -> None:
    """Redis does not undo what a script did before it failed, so it has to fail before."""
    room = await carry_out(store, await text_room(store), Post(1, "a"), Join(1, "node-3", "new"))
    await client.delete(key)
    await client.hset(key, "a key", "of another type")
    before = await contents(client)
    (result,) = await store.commit([change(room, command)])
    assert isinstance(result, Failed)
    assert await contents(client) == before


async def test_a_line_that_is_there_already_fails_as_a_whole(store: RoomStore, client: Client) -> None:
    room = await carry_out(store, await text_room(store), Post(1, "a"))
    await store.merge_chat(ROOM, [Message(2, USER_2, "from elsewhere", T0)])
    before = await contents(client)
    (result,) = await store.commit([change(room, Post(1, "b"))])
    assert isinstance(result, Failed)
    assert await contents(client) == before


async def test_a_notice_that_may_not_be_published_does_not_stop_the_commit(
    redis_server: RedisServer, store: RoomStore, client: Client
) -> None:
    """Notices may be lost at any time; a change that is stored must not be taken for one that is not."""
    if redis_server.url is None:
        pytest.skip("fakeredis has no access control")
    room = await text_room(store)
    for server in await servers(client):
        await server.acl_setuser(
            "mute", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset_channels=True
        )
    mute = connect(redis_server.url.replace("://", "://mute:any@"))
    try:
        posted = change(room, Post(1, "a"), notices={"node-2": b"unheard"})
        assert await RoomStore(mute, PARTITIONS, TOMBSTONE_MS).commit([posted]) == [Committed()]
        assert (await store.load(ROOM))[0] == posted.after
    finally:
        await mute.aclose()
        for server in await servers(client):
            await server.acl_deluser("mute")


# --- several at once ---


async def test_changes_of_one_call_are_independent(store: RoomStore) -> None:
    room = await text_room(store)
    other = change(None, opening(OTHER_ROOM))
    stale = change(change(room, Post(1, "x")).after, Post(1, "y"))
    assert await store.commit([stale, other]) == [Conflict(room), Committed()]
    assert await store.load_many([OTHER_ROOM, "f" * 36]) == [other.after, None]
    assert await store.commit([]) == []
    assert await store.load_many([]) == []


async def test_of_a_comparison_only_what_differs_is_read(store: RoomStore) -> None:
    room = await text_room(store)
    moved_on = await carry_out(store, None, opening(OTHER_ROOM), Join(1, "node-1", SESSION_1))
    older = replace(moved_on, version=1)
    unknown = replace(room, room_id="f" * 36)
    found = await store.compare([room, older, unknown])
    assert found == [room, moved_on, None]
    assert found[0] is room


async def test_a_server_that_forgot_the_script_is_told_again(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    await client.script_flush()
    room = await carry_out(store, room, Post(1, "a"))
    await client.script_flush()
    many = [change(room, Post(2, "b")), change(None, opening(OTHER_ROOM))]
    assert await store.commit(many) == [Committed(), Committed()]
    assert len(await events(client)) == 5


async def test_two_writers_who_race_lose_nothing(
    redis_server: RedisServer, store: RoomStore, client: Client
) -> None:
    await text_room(store)
    conflicts = 0

    async def write(side: int, connection: Client) -> None:
        nonlocal conflicts
        own = RoomStore(connection, PARTITIONS, TOMBSTONE_MS)
        room, _ = await own.load(ROOM)
        for number in range(100):
            while True:
                wanted = change(room, Post(1 if side == 1 else 2, f"{side}:{number}"))
                (result,) = await own.commit([wanted])
                if isinstance(result, Committed):
                    room = wanted.after
                    break
                assert isinstance(result, Conflict)
                room, conflicts = result.current, conflicts + 1

    connections = redis_server.connect(), redis_server.connect()
    try:
        await client.set(keys.epoch(PARTITION), "1")
        async with asyncio.timeout(60):
            await asyncio.gather(*(write(side, each) for side, each in enumerate(connections, start=1)))
    finally:
        for each in connections:
            await each.aclose()
    room, lines = await store.load(ROOM)
    assert room is not None
    assert (room.version, room.last_seq) == (203, 200)
    assert [line.seq for line in lines] == list(range(1, 201))
    for side in (1, 2):
        said = [line.text for line in lines if line.text.startswith(f"{side}:")]
        assert said == [f"{side}:{number}" for number in range(100)]
    told = await events(client)
    assert [event.room.version for event in told] == list(range(1, 204))
    assert [event.message for event in told[3:]] == lines
    assert conflicts > 0


# --- keys and connections ---


def test_all_keys_of_a_commit_are_in_one_slot_of_a_cluster() -> None:
    store = RoomStore(connect("redis://127.0.0.1:1"), PARTITIONS, TOMBSTONE_MS)
    for number in range(200):
        room_id = f"{number:08d}-0000-4000-8000-000000000000"
        opened = change(None, opening(room_id, ChatMode.TEXT)).after
        joined = change(opened, Join(1, "node-1", SESSION_1)).after
        both = change(joined, Join(2, "node-2", SESSION_2)).after
        taken = change(both, Join(1, "node-3", "new"))
        names, _ = store._arguments(taken)
        assert len(names) == 6 + 2 + 1
        assert len({key_slot(name.encode()) for name in names}) == 1
        assert store.partition_of(room_id) == key_slot(room_id.encode()) % PARTITIONS


async def test_a_server_that_is_away_is_said_to_be() -> None:
    nowhere = connect(f"redis://127.0.0.1:{free_port()}")
    away = RoomStore(nowhere, PARTITIONS, TOMBSTONE_MS)
    try:
        for work in (away.commit([change(None, opening())]), away.load(ROOM), away.rooms_of(USER_1)):
            with pytest.raises(StoreUnavailable):
                await work
    finally:
        await nowhere.aclose()


async def test_a_record_that_cannot_be_read_is_left_alone(store: RoomStore, client: Client) -> None:
    room = await text_room(store)
    await client.set(RECORD, b'{"version": 9, "format": 99}')
    before = await contents(client)
    (result,) = await store.commit([change(room, Post(1, "a"))])
    assert isinstance(result, Failed)
    assert await contents(client) == before

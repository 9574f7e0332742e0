"""Rooms that the app's backend opens and ends: in time or never, whatever Redis' clock says, on each server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import pytest

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import keys
from keepline.room.commands import Join
from keepline.room.record import EndReason, Room, Status
from signal_node.cluster.epochs import Epochs
from signal_node.http.idempotency import IdempotencyKeys
from signal_node.rooms import timely as timely_module
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import NotStored
from signal_node.rooms.store import Change, CommitResult, Committed, RoomStore
from signal_node.rooms.timely import AnotherRoom, NoSuchRoom, TimelyChanges
from tests.contract.changes import change
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, RULES, SESSION_1, SESSION_2, T0, USER_1, opening

PARTITIONS = 4
LATE_MS = 10_000


class Known:
    """The rooms of a node."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.remembered: list[Room] = []
        self.looked_at: list[str] = []
        self.counts = self
        self.commits = 0

    def stored(self, room_id: str) -> Room | None:
        return self.rooms.get(room_id)

    def remember(self, room: Room) -> None:
        self.remembered.append(room)


class Store(RoomStore):
    """Redis; as many commits as told of come `late_ms` later, or have their answers lost."""

    late = lost = 0

    async def not_after(self, room_id: str, until: float) -> int:
        late, self.late = self.late, max(0, self.late - 1)
        return await super().not_after(room_id, until) - (LATE_MS if late else 0)

    async def commit_each(self, changes: Sequence[Change]) -> list[CommitResult]:
        results = await super().commit_each(changes)
        lost, self.lost = self.lost, max(0, self.lost - 1)
        if lost:
            raise StoreUnavailable("the answer was lost")
        return results


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
async def store(client: Client) -> Store:
    await Epochs(client, PARTITIONS).begin(range(PARTITIONS))
    return Store(client, PARTITIONS, 60_000)


@pytest.fixture
def timely(store: Store, known: Known) -> TimelyChanges:
    count = itertools.count(1)
    return TimelyChanges(
        store,
        cast(Rooms, known),
        RULES,
        now=lambda: T0,
        new_write_id=lambda: f"node-1:http:{next(count)}",
        on_gap=known.looked_at.append,
        on_committed=lambda command, before, after: None,
    )


def waits() -> bool:
    return False


async def test_a_room_is_opened_and_kept_for_a_failover(
    timely: TimelyChanges, store: Store, known: Known
) -> None:
    room = await timely.open(opening(), waits)
    assert await store.load(ROOM) == (room, [])
    assert (known.remembered, known.commits) == ([room], 1)
    assert await timely.open(opening(), waits) == room
    with pytest.raises(AnotherRoom):
        await timely.open(opening(duration_seconds=60), waits)


async def test_what_comes_late_is_not_done(
    timely: TimelyChanges, store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.late = 1
    assert (await timely.open(opening(OTHER_ROOM), waits)).version == 1, "there is time to try again"
    monkeypatch.setattr(timely_module, "STORED_SECONDS", 0.2)
    store.late = 1_000
    with pytest.raises(StoreUnavailable, match="too late"):
        await timely.open(opening(), waits)
    assert await client.exists(keys.room(keys.partition_of(ROOM, PARTITIONS), ROOM)) == 0
    with pytest.raises(StoreUnavailable, match="too late"):
        await timely.end(OTHER_ROOM, EndReason.DELETED, waits)
    room, _ = await store.load(OTHER_ROOM)
    assert room is not None
    assert room.status is Status.ACTIVE


async def test_what_was_done_and_not_heard_of_is_done_once(
    timely: TimelyChanges, store: Store, client: Client
) -> None:
    store.lost = 2
    room = await timely.open(opening(), waits)
    assert (room.version, store.lost) == (1, 0)
    assert await client.xlen(keys.events(keys.partition_of(ROOM, PARTITIONS))) == 1


async def test_whose_caller_is_gone_is_not_done(timely: TimelyChanges, store: Store) -> None:
    with pytest.raises(NotStored):
        await timely.open(opening(), lambda: True)
    assert (await store.load_many([ROOM])) == [None]


async def test_the_end_is_told_to_every_node_and_counts_on_what_is_there(
    timely: TimelyChanges, store: Store, known: Known, redis_server: Any
) -> None:
    room = await timely.open(opening(), waits)
    for command in (Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2)):
        made = change(room, command)
        assert await store.commit([made]) == [Committed()]
        room = made.after
    async with redis_server.listening("node-1", keys.partition_of(ROOM, PARTITIONS)) as inbox:
        ended, _ = await timely.end(ROOM, EndReason.DELETED, waits)
        assert (ended.status, ended.version) == (Status.ENDED, room.version + 1)
        async with asyncio.timeout(5.0):
            async for message in inbox.listen():
                if message["type"] in ("message", "smessage"):
                    assert b"deleted" in message["data"]
                    break
    assert (await timely.end(ROOM, EndReason.HANGUP, waits))[0] == ended
    with pytest.raises(NoSuchRoom):
        await timely.end(OTHER_ROOM, EndReason.DELETED, waits)


async def test_a_room_of_which_redis_has_lost_something_is_healed_first(
    timely: TimelyChanges, store: Store, known: Known
) -> None:
    room = await timely.open(opening(), waits)
    known.rooms[ROOM] = change(room, Join(1, "node-1", SESSION_1)).after
    with pytest.raises(StoreUnavailable, match="has lost"):
        await timely.end(ROOM, EndReason.DELETED, waits)
    assert known.looked_at == [ROOM]
    assert room.side_1.user == USER_1


async def test_a_key_stands_for_one_room_for_as_long_as_that_is_known(client: Client) -> None:
    """Also where Redis' clock was set back, and lets it live for longer."""
    now = [T0]
    one, other = (IdempotencyKeys(client, PARTITIONS, 60_000, lambda: now[0]) for _ in range(2))
    room = await one.room_id("order 7")
    assert await other.room_id("order 7") == room
    assert await other.room_id("order 8") != room
    now[0] += 60_000
    assert await other.room_id("order 7") == room
    now[0] += 1
    second = await other.room_id("order 7")
    assert second != room
    assert await one.room_id("order 7") == second
    digest = sha256(b"order 7").hexdigest()
    kept = keys.idempotency(keys.partition_of(digest, PARTITIONS), digest)
    assert 0 < await client.pttl(kept) <= 60_000

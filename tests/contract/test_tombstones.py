"""How long Redis knows of a room that has ended, and by whose clock, on each server."""

from __future__ import annotations

import pytest

from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.commands import End, Join, Post
from keepline.room.record import ChatMode, EndReason, Room
from signal_node.rooms.store import Committed, RoomStore
from signal_node.rooms.tombstones import LEASE_MS, LEFT_OVER_MS, Tombstones
from tests.contract.changes import change
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, T0, opening

PARTITIONS = 4
HOUR_MS = 3_600_000
PARTITION = keys.partition_of(ROOM, PARTITIONS)
RECORD, CHAT, TRACE = (name(PARTITION, ROOM) for name in (keys.room, keys.chat, keys.trace))
JOINS = Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2)


class Time:
    """The cluster's."""

    def __init__(self) -> None:
        self.ms = T0

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
def store(client: Client, now: Time) -> RoomStore:
    return RoomStore(client, PARTITIONS, HOUR_MS, now=now)


@pytest.fixture
def tombstones(client: Client, now: Time) -> Tombstones:
    return Tombstones(client, PARTITIONS, now)


async def ended(store: RoomStore) -> Room:
    """A room with a line of chat that has ended."""
    room = None
    for command in (opening(chat_mode=ChatMode.TEXT), *JOINS, Post(1, "hello"), End(EndReason.HANGUP)):
        made = change(room, command)
        assert await store.commit([made]) == [Committed()]
        room = made.after
    assert room is not None
    return room


async def there(client: Client) -> int:
    return sum([await client.exists(key) for key in (RECORD, CHAT, TRACE)])


async def test_a_room_that_has_ended_goes_an_hour_later_by_the_clock_of_the_cluster(
    client: Client, store: RoomStore, tombstones: Tombstones, now: Time
) -> None:
    await ended(store)
    now.ms += HOUR_MS - 1
    assert await tombstones.forget_old() == 0
    assert await there(client) == 3
    now.ms += 1
    assert await tombstones.forget_old() == 1
    assert await there(client) == 0
    assert await client.zrange(keys.ended(PARTITION), 0, -1) == []
    assert await tombstones.forget_old() == 0


async def test_redis_itself_forgets_it_a_day_later_for_its_clock_may_be_set(
    client: Client, store: RoomStore
) -> None:
    await ended(store)
    for key in (RECORD, CHAT, TRACE):
        assert LEFT_OVER_MS < await client.pttl(key) <= LEFT_OVER_MS + HOUR_MS


async def test_a_room_that_lives_again_after_a_failover_is_left_alone(
    client: Client, store: RoomStore, tombstones: Tombstones, now: Time
) -> None:
    await ended(store)
    await client.set(RECORD, b"of a replica that was behind")
    now.ms += HOUR_MS
    await tombstones.forget_old()
    assert await client.get(RECORD) == b"of a replica that was behind"
    assert await client.exists(CHAT)
    assert await client.zrange(keys.ended(PARTITION), 0, -1) == []


async def test_an_end_that_is_written_again_meanwhile_counts_anew(
    client: Client, store: RoomStore, tombstones: Tombstones, now: Time
) -> None:
    await ended(store)
    now.ms += HOUR_MS
    moved = now.ms + LEASE_MS + HOUR_MS
    pop = tombstones._pop.run_many

    async def popped(calls: object) -> list[object]:
        answers: list[object] = await pop(calls)  # type: ignore[arg-type]
        await client.zadd(keys.ended(PARTITION), {ROOM: moved})
        return answers

    tombstones._pop.run_many = popped  # type: ignore[method-assign]
    await tombstones.forget_old()
    assert await there(client) == 3
    assert await client.zscore(keys.ended(PARTITION), ROOM) == moved


async def test_one_that_is_taken_by_a_node_that_dies_is_taken_by_another(
    client: Client, store: RoomStore, tombstones: Tombstones, now: Time
) -> None:
    await ended(store)
    now.ms += HOUR_MS

    async def dies(calls: object) -> list[object]:
        return []

    dying = Tombstones(client, PARTITIONS, now)
    dying._forget.run_many = dies  # type: ignore[method-assign]
    await dying.forget_old()
    assert await tombstones.forget_old() == 0
    now.ms += LEASE_MS
    assert await tombstones.forget_old() == 1
    assert await there(client) == 0

"""A cluster of the first releases, whose keys have no prefix: moved when it has stopped, left alone while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from keepline.ops.errors import CannotRun
from keepline.ops.redis.adoption import adopt
from keepline.ops.redis.client import Client
from keepline.room import keys
from keepline.room.commands import Join, Post
from signal_node.cluster.epochs import Epochs
from signal_node.cluster.registry import Registry
from signal_node.rooms.store import Committed, RoomStore
from signal_node.users.ownership import Users
from tests.contract.changes import change
from tests.contract.conftest import RedisServer
from tests.unit.signal_node.calls import ROOM, SESSION_1, USER_1, opening

PARTITIONS = 16
APPS = {"user:4711": b"an app's", "user:json": b'{"id": 1}', "order:1": b"x"}


@contextmanager
def prefix(text: str) -> Iterator[None]:
    keys.use_prefix(text)
    try:
        yield
    finally:
        keys.use_prefix(keys.DEFAULT_PREFIX)


@pytest.fixture(autouse=True)
def _only_real_servers(redis_server: RedisServer) -> None:
    if redis_server.url is None:
        pytest.skip("only real servers can scan")


async def first_release(client: Client) -> RoomStore:
    """A room with a line of chat, its user, and a node that has died; beside them what an app has."""
    store = RoomStore(client, PARTITIONS, 60_000)
    room = None
    with prefix(""):
        for command in (opening(), Join(1, "node-1", SESSION_1), Post(1, "hello")):
            made = change(room, command)
            assert await store.commit([made]) == [Committed()]
            room = made.after
        await Epochs(client, PARTITIONS).begin(range(PARTITIONS))
        await Users(client, "node-1", lambda: 0).take(USER_1, "session", None)
        await Registry(client, "node-1").beat({"state": "ready"}, 1)
    for name, value in APPS.items():
        await client.set(name, value)
    return store


async def test_what_has_stopped_is_moved(client: Client) -> None:
    store = await first_release(client)
    with prefix(""):
        before = await store.load(ROOM)
        epochs = await Epochs(client, PARTITIONS).read()
        holder = await Users(client, "node-1", lambda: 0).holder(USER_1)
        await client.delete(keys.node("node-1"))
    await adopt(client)
    assert await store.load(ROOM) == before
    assert [room.room_id for room in await store.rooms_of(USER_1)] == [ROOM]
    assert await Epochs(client, PARTITIONS).read() == epochs
    assert await Users(client, "node-2", lambda: 0).holder(USER_1) == holder == ("node-1", "session")
    assert await Registry(client, "node-2").nodes() == ({}, ["node-1"])
    assert await client.xlen(keys.events(keys.partition_of(ROOM, PARTITIONS))) == 3
    assert {name: await client.get(name) for name in APPS} == APPS
    with prefix(""):
        assert not await client.exists(keys.epoch(0))
        assert await store.load_many([ROOM]) == [None]
    await adopt(client)  # the next program finds nothing to do
    assert await store.load(ROOM) == before


async def test_what_is_moved_half_way_is_moved_by_the_next(client: Client) -> None:
    store = await first_release(client)
    with prefix(""):
        before = await store.load(ROOM)
        await client.delete(keys.node("node-1"))
    partition = keys.partition_of(ROOM, PARTITIONS)
    record = f"{keys.tag(partition)}:room:{ROOM}"
    await client.rename(record, keys.room(partition, ROOM))
    await adopt(client)
    assert await store.load(ROOM) == before


async def test_what_runs_is_left_alone(client: Client) -> None:
    store = await first_release(client)
    with pytest.raises(CannotRun, match=r"\(node-1\).*KEEPLINE_REDIS_PREFIX=none"):
        await adopt(client, nodes_die_seconds=0)
    assert await store.load_many([ROOM]) == [None]
    with prefix(""):
        await adopt(client)
        assert (await store.load_many([ROOM]))[0] is not None


async def test_another_prefix_takes_nothing(client: Client) -> None:
    store = await first_release(client)
    with prefix(""):
        await client.delete(keys.node("node-1"))
    with prefix("another:"):
        await adopt(client)
        assert await store.load_many([ROOM]) == [None]
    with prefix(""):
        assert (await store.load_many([ROOM]))[0] is not None


async def test_two_clusters_in_one_redis_know_nothing_of_each_other(client: Client) -> None:
    store = RoomStore(client, PARTITIONS, 60_000)
    with prefix("one:"):
        opened = change(None, opening())
        assert await store.commit([opened]) == [Committed()]
        await Registry(client, "node-1").beat({"state": "ready"}, 1)
    with prefix("two:"):
        assert await store.load_many([ROOM]) == [None]
        assert await Registry(client, "node-2").nodes() == ({}, [])
        await store.add_deadline(ROOM, 1)
        assert await store.pop_due([2] * PARTITIONS, 3, 9) == [ROOM]
    with prefix("one:"):
        deadlines = keys.deadlines(keys.partition_of(ROOM, PARTITIONS))
        assert await client.zscore(deadlines, ROOM) == opened.due_at, "the other has not taken it"

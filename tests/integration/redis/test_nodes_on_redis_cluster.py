"""The bus, the store and the event streams on a cluster of three masters, while slots move and servers die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from keepline.ops import redis
from keepline.ops.redis.client import ANSWER_SECONDS, Client
from keepline.ops.redis.cluster import Cluster
from keepline.room import keys
from keepline.room.writes import write_ids
from persister.stream import Entry, EventStreams, StreamsLost
from signal_node.bus import inbox as inbox_module
from signal_node.bus.inbox import Inbox
from signal_node.bus.lanes import Channels
from signal_node.bus.outbox import Outbox
from signal_node.bus.packets import notice
from signal_node.bus.publisher import RedisPublisher
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import Done, Outcome
from signal_node.rooms.store import Committed, RoomStore
from tests.contract.changes import change
from tests.helpers.ports import free_port
from tests.helpers.redis_cluster import Move, RedisCluster, running_cluster
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import RULES, SESSION_1, T0, opening
from tests.unit.signal_node.stores import Audience

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = range(keys.DEFAULT_PARTITIONS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisCluster]:
    """Three masters, for all tests of this file."""
    async with running_cluster(tmp_path_factory.mktemp("cluster"), replicas=False) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def client(servers: RedisCluster) -> AsyncIterator[Cluster]:
    """A client of an empty cluster."""
    connected = cast(Cluster, redis.connect(servers.url))
    await connected.flushall()
    yield connected
    await connected.aclose()


@asynccontextmanager
async def away(servers: RedisCluster, partition: int, client: Cluster) -> AsyncIterator[set[int]]:
    """Kill the master of a partition while the context is open; yields the partitions that are left."""
    owners = [await client.owner(keys.tag(other)) for other in PARTITIONS]
    (lost,) = (server for server in servers.servers if server.port == owners[partition][1])
    left = {other for other in PARTITIONS if owners[other] != owners[partition]}
    await lost.kill()
    try:
        yield left
    finally:
        await lost.start()
        await eventually(lambda: whole(client), what="the cluster is whole again")


async def whole(client: Cluster) -> bool:
    try:
        return bool([await client.set(keys.tag(partition), 1) for partition in PARTITIONS])
    except RedisError:
        return False


# --- the bus and the store ---


class Node:
    """An outbox and an inbox that run, and what was received."""

    def __init__(self, client: Client, name: str) -> None:
        channels = Channels(client, len(PARTITIONS))
        self.outbox = Outbox(channels, RedisPublisher(client), name)
        self.inbox = Inbox(channels, name, self.outbox.name, self)
        self.frames: list[bytes] = []
        self.notices: list[bytes] = []
        self.gaps = 0

    def frame_received(self, session: str, data: bytes) -> None:
        assert session == SESSION_1
        self.frames.append(data)

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        raise AssertionError("nobody is replaced")

    def slow_received(self, session: str, room_id: str) -> None:
        raise AssertionError("nobody reads slowly")

    def notice_received(self, data: bytes) -> None:
        self.notices.append(data)

    def inbox_gap(self) -> None:
        self.gaps += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        work = (self.inbox.run, self.outbox.run_prober, self.outbox.run)
        tasks = [asyncio.create_task(run()) for run in work]
        try:
            await eventually(lambda: not self.inbox.health.silent, what="every lane is heard")
            yield
            assert not any(task.done() for task in tasks)
        finally:
            await cancelled(tasks)


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: one cancel may be lost when a timed wait ends just then (python/cpython#86296)."""
    pending = set(tasks)
    for _ in range(10):
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=2.0)
        await asyncio.gather(*done, return_exceptions=True)
        if not pending:
            return
    raise AssertionError(f"still running: {pending}")


@asynccontextmanager
async def two_nodes(client: Client) -> AsyncIterator[tuple[Node, Node]]:
    here, there = Node(client, "here"), Node(client, "there")
    async with here.running(), there.running():
        yield here, there


async def reaches(here: Node, there: Node, mark: bytes) -> None:
    """Send until it has arrived once."""

    def arrives() -> bool:
        here.outbox.send("there", SESSION_1, mark)
        return mark in there.frames

    await eventually(arrives, what=f"{mark!r} arrives")


async def test_frames_arrive_in_order(client: Cluster) -> None:
    async with two_nodes(client) as (here, there):
        sent = [b"%d" % number for number in range(1_000)]
        for data in sent:
            here.outbox.send("there", SESSION_1, data)
            await asyncio.sleep(0)
        await eventually(lambda: len(there.frames) == len(sent), what="all frames arrive")
        assert there.frames == sent
        assert (here.outbox.dropped, there.inbox.gaps) == (0, 0)


async def test_pairs_of_nodes_are_spread_over_the_shards(client: Cluster) -> None:
    node = Node(client, "here")
    lanes = {node.outbox._lane(f"node-{number}").number for number in range(100)}
    assert lanes == set(PARTITIONS)


async def test_notices_of_commits_arrive_from_every_partition(client: Cluster) -> None:
    store = RoomStore(client, len(PARTITIONS), 60_000)
    rooms = {
        store.partition_of(room): room for room in (f"{n:08d}-0000-4000-8000-{n:012d}" for n in range(500))
    }
    assert rooms.keys() == set(PARTITIONS)
    async with two_nodes(client) as (_, there):
        changes = [
            change(None, opening(room), notices={"there": notice(room.encode())}) for room in rooms.values()
        ]
        assert await store.commit(changes) == [Committed()] * len(changes)
        wanted = {room.encode() for room in rooms.values()}
        await eventually(lambda: set(there.notices) == wanted, what="all notices arrive")


@asynccontextmanager
async def frozen(servers: RedisCluster, partition: int, client: Cluster) -> AsyncIterator[set[int]]:
    """A master does nothing while the context is open; yields the partitions of the others."""
    owners = [await client.owner(keys.tag(other)) for other in PARTITIONS]
    (slow,) = (server for server in servers.servers if server.port == owners[partition][1])
    os.kill(slow.pid, signal.SIGSTOP)
    try:
        yield {other for other in PARTITIONS if owners[other] != owners[partition]}
    finally:
        os.kill(slow.pid, signal.SIGCONT)
        await eventually(lambda: whole(client), what="the cluster is whole again")


async def test_a_shard_that_does_not_answer_holds_up_its_own_rooms_only(
    servers: RedisCluster, client: Cluster
) -> None:
    store = RoomStore(client, len(PARTITIONS), 60_000)
    by_partition = {
        store.partition_of(room): room for room in (f"{n:08d}-0000-4000-8000-{n:012d}" for n in range(500))
    }
    stored: dict[int, Outcome] = {}
    rooms = Rooms(
        "here",
        store,
        RULES,
        Audience([]),
        now=lambda: T0,
        new_write_id=write_ids("here", "life"),
        on_gap=lambda room_id: None,
        on_loss=lambda room_id: None,
    )

    def open_in(partition: int) -> None:
        room_id = by_partition[partition]
        rooms.execute(None, room_id, opening(room_id), lambda outcome: stored.__setitem__(partition, outcome))

    task = asyncio.create_task(rooms.run())
    async with frozen(servers, 7, client) as others:
        open_in(7)
        await asyncio.sleep(0)
        for partition in others:
            open_in(partition)
        await eventually(
            lambda: stored.keys() == others, timeout=ANSWER_SECONDS * 0.8, what="others are stored"
        )
    await eventually(lambda: 7 in stored, what="that room is stored, too")
    assert all(isinstance(outcome, Done) for outcome in stored.values())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_lanes_follow_a_slot_that_moves(client: Cluster) -> None:
    async with two_nodes(client) as (here, there):
        await reaches(here, there, b"before")
        lane = here.outbox._lane("there")
        gaps = there.gaps
        move = await Move.begin(client, keys.tag(lane.number))
        await move.end()
        await eventually(lambda: there.gaps > gaps, what="what was missed is looked for")
        await reaches(here, there, b"after")
        heard_before = there.inbox.health._heard_at[lane.number]
        await eventually(
            lambda: there.inbox.health._heard_at[lane.number] > heard_before, what="the moved lane is heard"
        )
        assert not there.inbox.health.silent


async def test_frames_take_another_lane_when_a_shard_is_away(servers: RedisCluster, client: Cluster) -> None:
    async with two_nodes(client) as (here, there):
        await reaches(here, there, b"before")
        async with away(servers, here.outbox._lane("there").number, client) as left:
            await reaches(here, there, b"meanwhile")
            assert here.outbox._lane("there").number in left
            assert here.outbox.dropped > 0
        await eventually(
            lambda: not (here.inbox.health.silent or there.inbox.health.silent),
            what="all lanes are heard again",
        )
        await reaches(here, there, b"after")


async def test_the_node_is_as_deaf_as_its_worst_lane(
    servers: RedisCluster, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "SILENT_SECONDS", 1.0)
    async with two_nodes(client) as (here, _):
        async with away(servers, 7, client):
            await eventually(lambda: here.inbox.health.silent, what="the node is deaf")
        await eventually(lambda: not here.inbox.health.silent, what="the node hears again")
        assert here.inbox.health.silent_seconds > 0


# --- the event streams ---


@pytest_asyncio.fixture(loop_scope="module")
async def streams(client: Cluster) -> EventStreams:
    """The streams of an empty cluster."""
    prepared = EventStreams(client, "worker")
    await prepared.prepare()
    return prepared


async def fill(client: Cluster, partitions: Iterable[int]) -> None:
    for partition in partitions:
        await client.xadd(keys.events(partition), {"event": b"%d" % partition})


def partitions_of(entries: Iterable[Entry]) -> list[int]:
    assert all(entry.data == b"%d" % entry.partition for entry in entries)
    return sorted(entry.partition for entry in entries)


async def test_all_streams_are_read_acknowledged_and_trimmed(client: Cluster, streams: EventStreams) -> None:
    await fill(client, PARTITIONS)
    entries = await streams.read(100, 1_000)
    assert partitions_of(entries) == list(PARTITIONS)
    backlog = await streams.backlog()
    assert (backlog.unread, backlog.unacknowledged) == (0, len(PARTITIONS))
    await streams.acknowledge(entries[1:])
    other = EventStreams(client, "other")
    await other.prepare()
    assert await other.claim(100, 0) == (entries[:1], 0)
    await other.bury(entries[0], "for the test")
    assert await client.xlen(keys.dead_letters(entries[0].partition)) == 1
    assert await streams.trim() == len(PARTITIONS)
    assert await streams.read(100, 1) == []
    assert await streams.remove_gone_consumers() == 0


async def test_a_reader_waits_for_the_first_entry(client: Cluster, streams: EventStreams) -> None:
    reading = asyncio.create_task(streams.read(100, 10_000))
    await fill(client, [11])
    async with asyncio.timeout(5):
        assert partitions_of(await reading) == [11]


async def test_streams_whose_server_is_away_are_left_out(
    servers: RedisCluster, client: Cluster, streams: EventStreams
) -> None:
    async with away(servers, 3, client) as left:
        await fill(client, left)
        assert partitions_of(await streams.read(100, 1_000)) == sorted(left)
        entries, _ = await streams.claim(100, 0)
        assert partitions_of(entries) == sorted(left)
        assert await streams.read(100, 1) == []
    with pytest.raises(StreamsLost):  # the server came back with nothing
        await streams.read(100, 1)
    await streams.prepare()
    await fill(client, PARTITIONS)
    assert partitions_of(await streams.read(100, 1_000)) == list(PARTITIONS)


async def test_no_answer_at_all_is_an_error() -> None:
    nowhere = redis.connect(f"redis+cluster://127.0.0.1:{free_port()}")
    streams = EventStreams(nowhere, "worker")
    streams._streams = {keys.events(0).encode(): 0}
    streams._partitions = 1
    with pytest.raises(RedisConnectionError):
        await streams.read(1, 1)
    await nowhere.aclose()

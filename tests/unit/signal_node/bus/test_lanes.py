"""The bus on a cluster, where there are several lanes: which one is taken, and when another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops.redis.client import Client
from signal_node.bus.lanes import Channels
from signal_node.bus.outbox import Outbox, Publisher
from tests.helpers.waiting import eventually
from tests.unit.signal_node.bus.test_bus import running, unpacked
from tests.unit.signal_node.calls import SESSION_1

LANES = 3


class Shards:
    """A client of a cluster. Nobody hears what is published on a lane of `unheard`; those of `broken` fail."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.unheard: set[int] = set()
        self.broken: set[int] = set()
        self.tried: list[int] = []
        self.written: list[tuple[str, bytes]] = []

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)


class Pipeline:
    """One write to a shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._published: list[tuple[str, bytes]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._published.clear()

    def spublish(self, channel: str, data: bytes) -> None:
        self._published.append((channel, data))

    async def execute(self) -> list[int]:
        (lane,) = {int(channel.partition("{p")[2][:2]) for channel, _ in self._published}
        self._shards.tried.append(lane)
        await self._shards.open.wait()
        if lane in self._shards.broken:
            raise RedisConnectionError("gone")
        if lane in self._shards.unheard:
            return [0] * len(self._published)
        self._shards.written += self._published
        return [1] * len(self._published)


class Node:
    """An outbox on shards. `lane` is the one that its packets take to "there" at first."""

    def __init__(self) -> None:
        self.shards = Shards()
        self.outbox = Outbox(Channels(cast(Client, self.shards), LANES), NoPublisher(), "here")
        self.lane = self.outbox._lane("there").number
        self.following = (self.lane + 1) % LANES

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.outbox.send("there", SESSION_1, frame)

    async def tries(self, count: int) -> list[int]:
        await eventually(lambda: len(self.shards.tried) >= count, what=f"{count} writes", interval=0.001)
        return self.shards.tried

    async def arrive(self, count: int) -> list[bytes]:
        """Wait for the frames that somebody heard."""

        def frames() -> list[bytes]:
            return [
                item[1]
                for _, packet in self.shards.written
                for item in unpacked(packet)
                if isinstance(item, tuple)
            ]

        await eventually(lambda: len(frames()) >= count, what=f"{count} frames", interval=0.001)
        return frames()


class NoPublisher:
    """On a cluster there is no one connection to publish over."""

    async def publish_all(self, messages: object) -> None:
        raise AssertionError(messages)

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def sending(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr("signal_node.bus.lanes.is_cluster", lambda client: True)
    node = Node()
    async with running(node.outbox.run()):
        yield node


async def test_all_packets_to_a_node_take_one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending(monkeypatch) as node:
        for count in range(1, 6):
            node.send(b"%d" % count)
            await node.arrive(count)
        assert node.shards.tried == [node.lane] * 5
        assert {channel for channel, _ in node.shards.written} == {
            f"keepline:{{p{node.lane:02d}}}:inbox:there"
        }


async def test_a_lane_that_waits_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending(monkeypatch) as node:
        node.shards.open.clear()
        node.send(b"waits")
        await node.tries(1)
        names = (f"node-{number}" for number in range(100))
        other = next(name for name in names if node.outbox._lane(name).number != node.lane)
        node.outbox.send(other, SESSION_1, b"does not wait")
        assert set(await node.tries(2)) == {node.lane, node.outbox._lane(other).number}


async def test_where_a_lane_fails_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending(monkeypatch) as node:
        node.shards.broken.add(node.lane)
        node.shards.open.clear()
        node.send(b"lost", b"lost")
        await node.tries(1)
        node.send(b"has waited")
        node.shards.open.set()
        assert await node.arrive(1) == [b"has waited"]
        node.send(b"later")
        assert await node.arrive(2) == [b"has waited", b"later"]
        assert node.shards.tried == [node.lane, node.following, node.following]
        assert node.outbox.dropped == 2


async def test_where_nobody_hears_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sending(monkeypatch) as node:
        node.shards.unheard |= {node.lane, node.following}
        node.shards.open.clear()
        node.send(b"unheard")
        await node.tries(1)
        node.send(b"unheard as well")
        node.shards.open.set()
        await node.tries(2)
        node.send(b"heard")
        assert await node.arrive(1) == [b"heard"]
        assert node.shards.tried == [node.lane, node.following, (node.following + 1) % LANES]


def test_what_has_no_lane_to_turn_to_stays() -> None:
    outbox = Outbox(Channels(cast(Client, None), 16), cast(Publisher, None), "here")
    outbox.send("there", SESSION_1, b"x")
    lane = outbox._lane("there")
    outbox._detour(lane, ["there"])
    assert (outbox._lane("there"), lane.take()) == (lane, ["there"])

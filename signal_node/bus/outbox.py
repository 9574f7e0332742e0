"""The outbox: frames for other nodes' inboxes, and probes for this node's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol
from zlib import crc32

import structlog
from redis.exceptions import RedisError

from keepline.ops.backoff import Backoff
from signal_node.bus.lanes import Channels, on_each_lane
from signal_node.bus.packets import (
    BY_BACKEND,
    FRAME,
    ITEM,
    REPLACED,
    SECONDS,
    SLOW,
    TIME,
    pack,
    pack_item,
    probe,
    sender_name,
)

MAX_QUEUED = 100_000
MAX_QUEUED_BYTES = 64 * 1_048_576
"""Maximum number of frames, and of their bytes, that wait for Redis."""

MAX_NODE_BYTES = 16 * 1_048_576
"""The maximum for a single node, so that a slow one does not block the others."""

MAX_PACKET_BYTES = 1_048_576
"""Redis closes a subscription that has 32 MB to read, and forwards nothing else while it writes."""

PROBE_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """How packets leave on a single lane; see `signal_node.bus.publisher`."""

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (channel, data), in order. Raises RedisError."""

    async def aclose(self) -> None:
        """Close the connection."""


class _Lane:
    """One of the lanes to other nodes. `nodes` are those with frames queued on it."""

    __slots__ = ("nodes", "number", "probing", "wanted")

    def __init__(self, number: int) -> None:
        self.number = number
        self.nodes: list[str] = []
        self.wanted = asyncio.Event()
        self.probing = False

    def add(self, node: str) -> None:
        self.nodes.append(node)
        self.wanted.set()

    def probe(self) -> None:
        self.probing = True
        self.wanted.set()

    def take(self) -> list[str]:
        nodes, self.nodes = self.nodes, []
        self.wanted.clear()
        return nodes


class _Queue:
    """The queue for one node."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.size = 0

    def take(self, limit: int) -> list[bytes]:
        """Take from the front what fits in `limit` bytes, but at least one item."""
        items = self.items
        if self.size <= limit:
            self.items, self.size = [], 0
            return items
        size = count = 0
        for item in items:
            size += len(item)
            if count and size > limit:
                size -= len(item)
                break
            count += 1
        self.items = items[count:]
        self.size -= size
        return items[:count]


class Outbox:
    """The queues to other nodes. Run `run` and `run_prober` as tasks."""

    def __init__(
        self,
        channels: Channels,
        publisher: Publisher,
        node: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take `clock()`, the time of the cluster in seconds since 1970, which is used only for measurements."""
        self.name = sender_name(node)
        self._channels = channels
        self._publisher = publisher
        self._lanes = [_Lane(number) for number in range(channels.lanes)]
        self._lane_to: dict[str, _Lane] = {}
        self._node = node
        self._probe_data = probe(self.name)
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._queued = self._queued_bytes = 0
        self._numbers: dict[str, int] = {}
        self._sent_at: dict[str, float] = {}
        self.packets = 0
        self.dropped = 0

    @property
    def queued(self) -> int:
        """Number of queued frames."""
        return self._queued

    def send(self, node: str, session: str, data: bytes) -> bool:
        """Send a frame to a session of another node; False if too much is queued already."""
        return self._put(node, ITEM.pack(FRAME, session.encode(), len(data)) + data)

    def time_latency(self, node: str) -> None:
        """Put the current time into the next packet to a node, so that the node can measure the latency."""
        self._sent_at.setdefault(node, self._clock())

    def replace(self, node: str, session: str, *, by_backend: bool = False) -> None:
        """Tell another node that one of its sessions has been replaced, or disconnected by the app's backend.

        A node of an older release ignores the mark, and closes the session as replaced.
        """
        self._put(node, pack_item(REPLACED, session, BY_BACKEND if by_backend else b""))

    def tell_slow(self, node: str, session: str, room_id: str) -> None:
        """Tell the node of a peer that a session of this node reads more slowly than it is sent to."""
        self._put(node, pack_item(SLOW, session, room_id.encode()))

    def _put(self, node: str, item: bytes) -> bool:
        size = len(item)
        queue = self._queues.get(node)
        if (
            self._queued >= MAX_QUEUED
            or self._queued_bytes + size > MAX_QUEUED_BYTES
            or (queue is not None and queue.size + size > MAX_NODE_BYTES)
        ):
            return False
        self._queued += 1
        self._queued_bytes += size
        if queue is None:
            queue = self._queues[node] = _Queue()
            self._lane(node).add(node)
        queue.items.append(item)
        queue.size += size
        return True

    def _take(self, nodes: Collection[str]) -> dict[str, list[bytes]]:
        """At most one packet per node. The rest of a queue is sent next."""
        taken = {}
        for node in nodes:
            queue = self._queues[node]
            items = taken[node] = queue.take(MAX_PACKET_BYTES)
            if queue.items:
                self._lane(node).add(node)
            else:
                del self._queues[node]
            self._queued -= len(items)
            self._queued_bytes -= sum(map(len, items))
        return taken

    def _lane(self, node: str) -> _Lane:
        lane = self._lane_to.get(node)
        if lane is None:
            spread = crc32(f"{self._node} {node}".encode())
            lane = self._lane_to[node] = self._lanes[spread % len(self._lanes)]
        return lane

    async def run(self) -> None:
        """Publish queued frames until cancelled. Frames that cannot be published are dropped, because they would be
        outdated.
        """
        try:
            await on_each_lane(self._lanes, self._send)
        finally:
            await self._publisher.aclose()

    async def _send(self, lane: _Lane) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            await lane.wanted.wait()
            queues = self._take(lane.take())
            frames = sum(map(len, queues.values()))
            try:
                unheard = await self._publish(lane, queues)
                backoff.reset()
            except RedisError as error:
                if frames:
                    self.dropped += frames
                    _log.warning("bus_publish_failed", error=str(error), dropped=frames)
                self._detour(lane, [*queues, *lane.nodes])
                await asyncio.sleep(backoff.next())
            else:
                self._detour(lane, unheard)

    async def _publish(self, lane: _Lane, queues: dict[str, list[bytes]]) -> list[str]:
        """Publish one packet per node, and return the nodes that do not listen on this lane."""
        packets = []
        for node, items in queues.items():
            number = self._numbers[node] = self._numbers.get(node, 0) + 1
            sent_at = self._sent_at.pop(node, None)
            if sent_at is not None:
                items.append(pack_item(TIME, "", SECONDS.pack(sent_at)))
            packets.append((node, pack(self.name, number, items)))
        self.packets += len(packets)
        if self._channels.sharded:
            heard = await self._channels.publish_to_shard(lane.number, packets)
            return [node for node, count in zip(queues, heard, strict=True) if not count]
        if lane.probing:
            lane.probing = False
            packets.append((self._node, self._probe_data))
        await self._publisher.publish_all(
            [(self._channels.name(node, lane.number), data) for node, data in packets]
        )
        return []

    def _detour(self, lane: _Lane, nodes: Collection[str]) -> None:
        """Use the next lane to some nodes from now on, including for frames that are queued already."""
        following = self._lanes[(lane.number + 1) % len(self._lanes)]
        if following is lane or not nodes:
            return
        waiting = lane.take()
        self._lane_to |= dict.fromkeys(nodes, following)
        for node in waiting:
            self._lane_to[node].add(node)

    async def run_prober(self) -> None:
        """Send probes to this node's inbox until cancelled."""
        await on_each_lane(self._lanes, self._probe)

    async def _probe(self, lane: _Lane) -> None:
        while True:
            if self._channels.sharded:
                try:
                    await self._channels.publish(lane.number, self._node, self._probe_data)
                except RedisError as error:
                    _log.debug("probe_not_sent", error=str(error))
            else:
                lane.probe()
            await asyncio.sleep(PROBE_SECONDS)

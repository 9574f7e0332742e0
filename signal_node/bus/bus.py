"""The inbox bus: how nodes reach each other's clients, over Redis pub/sub.

What a caller may assume. `send` never waits and never fails: the frame is in memory until the current round trip
to Redis is over, then everything that has gathered for one node leaves as one PUBLISH, and all nodes' in one write.
A packet has at most `MAX_PACKET_BYTES`; what is more goes with the next ones. Frames from one node to another arrive in
the order sent, at most once; they are lost with the connection to Redis, and new ones are refused while too many wait,
or too many bytes. Notices of commits come through the same channel, but are published by the commit script, and are not
ordered against frames.

A subscription can fall silent while its connection stays open, so the node sends itself a probe through its own
inbox, on the connection that frames leave by, which so is never idle. After `SILENT_SECONDS` without one the inbox
counts as silent; then the subscription is made anew, and `inbox_gap` has the cache compared with Redis. Packets are
numbered, so that a gap shows as well.

On a Redis Cluster there are several lanes (see `channels`), each with tasks of its own, so that a shard that is away
holds up no other. All packets from one node to another take the same lane, which keeps them in order and spreads pairs
of nodes over the shards. Where that lane fails, or nobody hears on it, they take the next from then on. The node is as
silent as the lane that has been silent for longest.

A packet is `P`, the length of the sender's name and the name (the node and the start of its process), a u64 that counts
the sender's packets to this node, then items of `kind`, the session (16 bytes), a u32 length and the payload; items of
an unknown kind are skipped. Now and then one of them is the time, on the cluster's clock, at which a frame of the
packet was sent: so the receiver knows how long the way between the nodes takes. A notice is `N` and its JSON, a probe
is `?` and the sender's name.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol
from zlib import crc32

import structlog
from redis.exceptions import ConnectionError, RedisError

from keepline.ops.backoff import Backoff
from keepline.ops.metrics import Timings
from keepline.ops.redis.client import Client
from keepline.room import keys
from signal_node.bus.lanes import MESSAGE, MOVED, SUBSCRIBED, Channels
from signal_node.protocol.session import SESSION_ID_BYTES

MAX_QUEUED = 100_000
MAX_QUEUED_BYTES = 64 * 1_048_576
"""Frames, and their bytes, that wait for Redis at the most."""

MAX_NODE_BYTES = 16 * 1_048_576
"""Of those, what waits for one node: others are to be reached when one is slow."""

MAX_PACKET_BYTES = 1_048_576
"""Redis closes the subscription of a node that has 32 MB to read, and hands on nothing else while it writes."""

_FRAME, _REPLACED, _TIME, _SLOW = ord("F"), ord("R"), ord("T"), ord("S")
_BY_BACKEND = b"B"
_PACKET, _NOTICE, _PROBE = ord("P"), ord("N"), ord("?")
_ITEM = struct.Struct(f">B{SESSION_ID_BYTES}sI")
_NUMBER = struct.Struct(">Q")
_SECONDS = struct.Struct(">d")
_LATENCY_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

PROBE_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""After so long without a probe the inbox counts as silent, and the node subscribes again."""

MAX_SENDERS = 10_000

PUT_BACK_SECONDS = 5.0
"""How long after the loss of a subscription other nodes may take to subscribe again and put back what Redis lacks."""

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """What comes out of the inbox."""

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame for a session of this node."""

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        """The session's user is held by another connection now."""

    def notice_received(self, data: bytes) -> None:
        """Another node has committed a change to a room that has a side here."""

    def slow_received(self, session: str, room_id: str) -> None:
        """The session of another node does not read as fast as it is sent to in a room."""

    def inbox_gap(self) -> None:
        """What was sent until now may have been missed."""

    def frames_dropped(self, frames: int) -> None:
        """Frames could not be sent."""


def notice(payload: bytes) -> bytes:
    """A notice as the commit script publishes it."""
    return b"N" + payload


class Publisher(Protocol):
    """How packets leave where there is one lane; see `signal_node.bus.publisher`."""

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (channel, data), in order. Raises RedisError."""

    async def aclose(self) -> None:
        """Close what it keeps open."""


class _Lane:
    """One of the ways between nodes. `nodes` are those to whom something waits to be sent on it."""

    __slots__ = ("heard", "heard_at", "nodes", "number", "probing", "wanted")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.nodes: list[str] = []
        self.wanted = asyncio.Event()
        self.probing = False
        self.heard_at = now
        self.heard = False

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
    """What waits for one node."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.size = 0

    def take(self, limit: int) -> list[bytes]:
        """Take from the front what fits in `limit` bytes, one item at least."""
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


class Bus:
    """This node's inbox, and the way to the others'. `run_sender` and `run_receiver` are to be run as tasks."""

    def __init__(
        self,
        client: Client,
        publisher: Publisher,
        node: str,
        receiver: Receiver,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        partitions: int = keys.DEFAULT_PARTITIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take `clock()`, seconds since 1970 as all nodes count them: it is only measured by."""
        self._channels = Channels(client, partitions)
        self._publisher = publisher
        self._lanes = [_Lane(number, monotonic()) for number in range(self._channels.lanes)]
        self._lane_to: dict[str, _Lane] = {}
        self._node = node
        self._name = f"{node}/{secrets.token_hex(4)}"
        self._probe_data = bytes((_PROBE,)) + self._name.encode()
        self._receiver = receiver
        self._monotonic = monotonic
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._queued = self._queued_bytes = 0
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._sent_at: dict[str, float] = {}
        self._silent_before = 0.0
        self._lost_at = float("-inf")
        self.gaps = 0
        self.packets = 0
        self.latency = Timings(_LATENCY_BOUNDS)

    @property
    def inbox_silent(self) -> bool:
        """Whether nothing has come through the own inbox for too long, or ever."""
        return not all(lane.heard for lane in self._lanes) or self._silent_for() > SILENT_SECONDS

    @property
    def just_lost(self) -> bool:
        """Whether a subscription was lost in the last seconds: Redis may be another one, and not have all rooms yet."""
        return self._monotonic() - self._lost_at < PUT_BACK_SECONDS

    @property
    def silent_seconds(self) -> float:
        """The total time for which the inbox was silent."""
        return self._silent_before + max(0.0, self._silent_for() - SILENT_SECONDS)

    @property
    def queued(self) -> int:
        """Frames that wait to be sent."""
        return self._queued

    def heard_age(self) -> float | None:
        """Seconds since the own inbox was last heard, by its worst lane; None when there is one that never was."""
        return self._silent_for() if all(lane.heard for lane in self._lanes) else None

    def _silent_for(self) -> float:
        return self._monotonic() - min(lane.heard_at for lane in self._lanes)

    # --- out ---

    def send(self, node: str, session: str, data: bytes) -> bool:
        """Send a frame to a session of another node; False when too much waits already."""
        return self._put(node, _ITEM.pack(_FRAME, session.encode(), len(data)) + data)

    def time_latency(self, node: str) -> None:
        """Let the next packet to a node say when this was called, so that the node can tell how long it took."""
        self._sent_at.setdefault(node, self._clock())

    def replace(self, node: str, session: str, *, by_backend: bool = False) -> None:
        """Tell another node that a session of its has been replaced, or that the app's backend wants it gone.

        A node of an older release does not look at the mark, and closes the session as replaced.
        """
        mark = _BY_BACKEND if by_backend else b""
        self._put(node, _ITEM.pack(_REPLACED, session.encode(), len(mark)) + mark)

    def tell_slow(self, node: str, session: str, room_id: str) -> None:
        """Tell the node of a peer that a session of this node does not read as fast as is sent to it."""
        room = room_id.encode()
        self._put(node, _ITEM.pack(_SLOW, session.encode(), len(room)) + room)

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
        """At most a packet for each node; what is left of a queue stays the next to be sent."""
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

    async def run_sender(self) -> None:
        """Publish what gathers, until cancelled. What cannot be published is dropped: frames do not keep."""
        try:
            await self._on_each_lane(self._send)
        finally:
            await self._publisher.aclose()

    async def _on_each_lane(self, work: Callable[[_Lane], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(work(lane))

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
                    self._receiver.frames_dropped(frames)
                    _log.warning("bus_publish_failed", error=str(error), dropped=frames)
                self._detour(lane, [*queues, *lane.nodes])
                await asyncio.sleep(backoff.next())
            else:
                self._detour(lane, unheard)

    async def _publish(self, lane: _Lane, queues: dict[str, list[bytes]]) -> list[str]:
        """Publish a packet for each node; returns the nodes that do not listen on this lane."""
        packets = []
        for node, items in queues.items():
            number = self._numbers[node] = self._numbers.get(node, 0) + 1
            sent_at = self._sent_at.pop(node, None)
            if sent_at is not None:
                items.append(_ITEM.pack(_TIME, b"", _SECONDS.size) + _SECONDS.pack(sent_at))
            packets.append((node, _pack(self._name, number, items)))
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
        """Take the next lane to some nodes from now on, also with what waits already."""
        following = self._lanes[(lane.number + 1) % len(self._lanes)]
        if following is lane or not nodes:
            return
        waiting = lane.take()
        self._lane_to |= dict.fromkeys(nodes, following)
        for node in waiting:
            self._lane_to[node].add(node)

    async def run_prober(self) -> None:
        """Send probes to the own inbox, until cancelled."""
        await self._on_each_lane(self._probe)

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

    # --- in ---

    async def run_receiver(self) -> None:
        """Receive until cancelled; a subscription that is lost or silent is made anew."""
        await self._on_each_lane(self._listen)

    async def _listen(self, lane: _Lane) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                await self._subscription(lane, backoff)
            except RedisError as error:
                self._lost_at = self._monotonic()
                delay = backoff.next()
                _log.warning(
                    "inbox_lost",
                    lane=lane.number,
                    error=str(error) or type(error).__name__,
                    retry_in_ms=round(delay * 1000),
                )
                await asyncio.sleep(delay)

    async def _subscription(self, lane: _Lane, backoff: Backoff) -> None:
        async with self._channels.subscribed(self._node, lane.number) as inbox:
            listening_since = self._monotonic()
            while True:
                kind, data = await inbox.receive(PROBE_SECONDS) or (None, b"")
                if kind in MESSAGE:
                    if self._receive(data):
                        self._hear(lane)
                elif kind in SUBSCRIBED:
                    backoff.reset()
                    self._seen.clear()
                    self._receiver.inbox_gap()
                elif kind == MOVED:
                    raise ConnectionError("the channel moved to another server")
                if self._monotonic() - max(listening_since, lane.heard_at) > SILENT_SECONDS:
                    raise ConnectionError("the inbox is silent")

    def _hear(self, lane: _Lane) -> None:
        silent_until_now = self.silent_seconds
        lane.heard_at = self._monotonic()
        lane.heard = True
        self._silent_before = silent_until_now - max(0.0, self._silent_for() - SILENT_SECONDS)

    def _receive(self, data: bytes) -> bool:
        """Take in a message; whether it is a probe of this node's own."""
        try:
            if data[0] == _PACKET:
                self._unpack(data)
            elif data[0] == _NOTICE:
                self._receiver.notice_received(data[1:])
            elif data[0] == _PROBE:
                return data[1:].decode() == self._name
        except (IndexError, struct.error, ValueError) as error:
            _log.error("bus_message_unreadable", error=f"{type(error).__name__}: {error}", size=len(data))
        return False

    def _unpack(self, data: bytes) -> None:
        at = 2 + data[1]
        self._count(data[2:at].decode(), _NUMBER.unpack_from(data, at)[0])
        at += _NUMBER.size
        end = len(data)
        while at < end:
            kind, session, size = _ITEM.unpack_from(data, at)
            at += _ITEM.size
            if at + size > end:
                raise ValueError("truncated packet")
            if kind == _FRAME:
                self._receiver.frame_received(session.decode(), data[at : at + size])
            elif kind == _REPLACED:
                by_backend = data[at : at + size] == _BY_BACKEND
                self._receiver.replaced_received(session.decode(), by_backend=by_backend)
            elif kind == _SLOW:
                self._receiver.slow_received(session.decode(), data[at : at + size].decode())
            elif kind == _TIME:
                self.latency.observe(max(0.0, self._clock() - _SECONDS.unpack_from(data, at)[0]))
            at += size

    def _count(self, sender: str, number: int) -> None:
        seen = self._seen.get(sender)
        if seen is not None and number != seen + 1:
            self.gaps += 1
            self._receiver.inbox_gap()
        if seen is None and len(self._seen) >= MAX_SENDERS:
            self._seen.clear()
        self._seen[sender] = number


def _pack(node: str, number: int, items: list[bytes]) -> bytes:
    name = node.encode()
    return b"".join((bytes((_PACKET, len(name))), name, _NUMBER.pack(number), *items))

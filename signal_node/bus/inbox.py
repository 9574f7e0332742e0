"""This node's inbox: frames from other nodes for its clients, and notices about its rooms.

A subscription can fall silent while its connection stays open. So the node sends itself a probe through its own inbox,
on the connection that also carries frames, which keeps that connection active. After `SILENT_SECONDS` without a probe,
the inbox counts as silent; the node then subscribes again, and `inbox_gap` has the cache compared with Redis. After a
stall the node first reads what its connection holds, because a new subscription would lose that. Packets are numbered,
which also reveals gaps. On a Redis Cluster, the node is as silent as its worst lane.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from redis.exceptions import ConnectionError, RedisError

from keepline.ops.backoff import Backoff
from keepline.ops.metrics import Timings
from signal_node.bus.lanes import MESSAGE, MOVED, SUBSCRIBED, Channels, on_each_lane
from signal_node.bus.outbox import PROBE_SECONDS
from signal_node.bus.packets import (
    BY_BACKEND,
    FRAME,
    ITEM,
    NOTICE,
    NUMBER,
    PACKET,
    PROBE,
    REPLACED,
    SECONDS,
    SLOW,
    TIME,
)

SILENT_SECONDS = 3.0
"""Time without a probe after which the inbox counts as silent, and the node subscribes again."""

STALL_SECONDS = 2 * PROBE_SECONDS
"""Time between two checks of a subscription after which the node itself must have stalled."""

MAX_SENDERS = 10_000

PUT_BACK_SECONDS = 5.0
"""How long other nodes may need after a lost subscription to subscribe again and restore what Redis lacks."""

_LATENCY_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """The receiver of what arrives in the inbox."""

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame for a session of this node."""

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        """Another connection now holds the session's user."""

    def notice_received(self, data: bytes) -> None:
        """Another node has committed a change of a room that has a side here."""

    def slow_received(self, session: str, room_id: str) -> None:
        """The session of another node reads more slowly than this node sends to it in a room."""

    def inbox_gap(self) -> None:
        """Anything sent until now may have been missed."""


class InboxHealth:
    """Whether the inbox is reliable. Over several lanes, the worst one counts."""

    def __init__(self, lanes: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._heard_at = [monotonic()] * lanes
        self._heard = [False] * lanes
        self._silent_before = 0.0
        self._lost_at = float("-inf")

    @property
    def silent(self) -> bool:
        """Whether nothing has arrived for too long, or ever."""
        return not all(self._heard) or self._silent_for() > SILENT_SECONDS

    @property
    def just_lost(self) -> bool:
        """Whether a subscription was lost in the last seconds. Redis may be another server, without all rooms yet."""
        return self._monotonic() - self._lost_at < PUT_BACK_SECONDS

    @property
    def silent_seconds(self) -> float:
        """The total time for which the inbox was silent."""
        return self._silent_before + max(0.0, self._silent_for() - SILENT_SECONDS)

    def heard_age(self) -> float | None:
        """Seconds since the last probe; None if some lane has never received one."""
        return self._silent_for() if all(self._heard) else None

    def heard(self, lane: int) -> None:
        """A probe has arrived."""
        silent_until_now = self.silent_seconds
        self._heard_at[lane] = self._monotonic()
        self._heard[lane] = True
        self._silent_before = silent_until_now - max(0.0, self._silent_for() - SILENT_SECONDS)

    def lost(self) -> None:
        """A subscription was lost."""
        self._lost_at = self._monotonic()

    def check(self, lane: int, listening_since: float) -> None:
        """Raise ConnectionError if a lane has been subscribed for too long without a probe."""
        if self._monotonic() - max(listening_since, self._heard_at[lane]) > SILENT_SECONDS:
            raise ConnectionError("the inbox is silent")

    def _silent_for(self) -> float:
        return self._monotonic() - min(self._heard_at)


class Inbox:
    """Passes what arrives to the receiver. Run `run` as a task."""

    def __init__(
        self,
        channels: Channels,
        node: str,
        own_name: str,
        receiver: Receiver,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`name` is the name in the outbox' probes. `clock()` is the time of the cluster, in seconds since 1970."""
        self.health = InboxHealth(channels.lanes, monotonic)
        self.gaps = 0
        self.latency = Timings(_LATENCY_BOUNDS)
        self._channels = channels
        self._node = node
        self._own_name = own_name
        self._receiver = receiver
        self._monotonic = monotonic
        self._clock = clock
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        """Receive until cancelled. Subscribe again if a subscription is lost or silent."""
        await on_each_lane(range(self._channels.lanes), self._listen)

    async def _listen(self, lane: int) -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                await self._subscription(lane, backoff)
            except RedisError as error:
                self.health.lost()
                delay = backoff.next()
                _log.warning(
                    "inbox_lost",
                    lane=lane,
                    error=str(error) or type(error).__name__,
                    retry_in_ms=round(delay * 1000),
                )
                await asyncio.sleep(delay)

    async def _subscription(self, lane: int, backoff: Backoff) -> None:
        async with self._channels.subscribed(self._node, lane) as inbox:
            listening_since = checked_at = self._monotonic()
            while True:
                kind, data = await inbox.receive(PROBE_SECONDS) or (None, b"")
                if kind in MESSAGE:
                    if self.receive(data):
                        self.health.heard(lane)
                elif kind in SUBSCRIBED:
                    backoff.reset()
                    self._seen.clear()
                    self._receiver.inbox_gap()
                elif kind == MOVED:
                    raise ConnectionError("the channel moved to another server")
                now = self._monotonic()
                if now - checked_at > STALL_SECONDS:
                    listening_since = now  # the probes of that time are still to be read
                checked_at = now
                self.health.check(lane, listening_since)

    def receive(self, data: bytes) -> bool:
        """Process a message, and return whether it is one of this node's own probes."""
        try:
            if data[0] == PACKET:
                self._unpack(data)
            elif data[0] == NOTICE:
                self._receiver.notice_received(data[1:])
            elif data[0] == PROBE:
                return data[1:].decode() == self._own_name
        except (IndexError, struct.error, ValueError) as error:
            _log.error("bus_message_unreadable", error=f"{type(error).__name__}: {error}", size=len(data))
        return False

    def _unpack(self, data: bytes) -> None:
        at = 2 + data[1]
        self._count(data[2:at].decode(), NUMBER.unpack_from(data, at)[0])
        at += NUMBER.size
        end = len(data)
        while at < end:
            kind, session, size = ITEM.unpack_from(data, at)
            at += ITEM.size
            if at + size > end:
                raise ValueError("truncated packet")
            if kind == FRAME:
                self._receiver.frame_received(session.decode(), data[at : at + size])
            elif kind == REPLACED:
                by_backend = data[at : at + size] == BY_BACKEND
                self._receiver.replaced_received(session.decode(), by_backend=by_backend)
            elif kind == SLOW:
                self._receiver.slow_received(session.decode(), data[at : at + size].decode())
            elif kind == TIME:
                self.latency.observe(max(0.0, self._clock() - SECONDS.unpack_from(data, at)[0]))
            at += size

    def _count(self, sender: str, number: int) -> None:
        seen = self._seen.get(sender)
        if seen is not None and number != seen + 1:
            self.gaps += 1
            self._receiver.inbox_gap()
        if seen is None and len(self._seen) >= MAX_SENDERS:
            self._seen.clear()
        self._seen[sender] = number

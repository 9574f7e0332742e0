"""The inbox bus: how nodes reach each other's clients, over Redis pub/sub.

What a caller may assume. `send` never waits and never fails: the frame is in memory until the current round trip
to Redis is over, then everything that has gathered for one node leaves as one PUBLISH, and all nodes' in one write.
Frames from one node to another arrive in the order sent, at most once; they are lost with the connection to Redis,
and new ones are dropped while `MAX_QUEUED` wait. Notices of commits come through the same channel, but are
published by the commit script, and are not ordered against frames.

Pub/sub can go deaf without anyone noticing, so the node sends itself a probe through its own inbox. What has not been
heard for `DEAF_SECONDS` counts as deaf; then the subscription is made anew, and `on_subscribed` has the cache compared
with Redis. Packets are numbered, so that a gap shows as well.

A packet is `P`, the length of the sender's name and the name (the node and the start of its process), a u64 that counts
the sender's packets to this node, then items of `kind`, the session (16 bytes), a u32 length and the payload. A notice
is `N` and its JSON, a probe is `?` and the sender's name.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from redis.exceptions import ConnectionError, RedisError

from keepline.ops.backoff import Backoff
from keepline.ops.redis import Client
from keepline.room import keys

MAX_QUEUED = 100_000
"""Frames that wait for Redis at the most."""

SESSION_BYTES = 16
_FRAME, _REPLACED = ord("F"), ord("R")
_PACKET, _NOTICE, _PROBE = ord("P"), ord("N"), ord("?")
_ITEM = struct.Struct(f">B{SESSION_BYTES}sI")
_NUMBER = struct.Struct(">Q")

PROBE_SECONDS = 0.5
DEAF_SECONDS = 3.0
"""Silence of the own inbox after which the node counts as deaf, and subscribes again."""

MAX_SENDERS = 10_000

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """What comes out of the inbox."""

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame for a session of this node."""

    def replaced_received(self, session: str) -> None:
        """The session's user is held by another connection now."""

    def notice_received(self, data: bytes) -> None:
        """Another node has committed a change to a room that has a side here."""

    def inbox_gap(self) -> None:
        """What was sent until now may have been missed."""

    def frames_dropped(self, frames: int) -> None:
        """Frames could not be sent."""


def notice(payload: bytes) -> bytes:
    """A notice as the commit script publishes it."""
    return b"N" + payload


class Bus:
    """This node's inbox, and the way to the others'. `run_sender` and `run_receiver` are to be run as tasks."""

    def __init__(
        self, client: Client, node: str, receiver: Receiver, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._node = node
        self._name = f"{node}/{secrets.token_hex(4)}"
        self._receiver = receiver
        self._monotonic = monotonic
        self._queues: dict[str, list[bytes]] = {}
        self._queued = 0
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._wanted = asyncio.Event()
        self._heard_at = monotonic()
        self._deaf_before = 0.0
        self.heard = False
        self.gaps = 0

    @property
    def deaf(self) -> bool:
        """Whether nothing has come through the own inbox for too long, or ever."""
        return not self.heard or self._silent_for() > DEAF_SECONDS

    @property
    def deaf_seconds(self) -> float:
        """How long the node has been deaf, all in all."""
        return self._deaf_before + max(0.0, self._silent_for() - DEAF_SECONDS)

    def _silent_for(self) -> float:
        return self._monotonic() - self._heard_at

    # --- out ---

    def send(self, node: str, session: str, data: bytes) -> None:
        """Send a frame to a session of another node."""
        self._put(node, _ITEM.pack(_FRAME, session.encode(), len(data)) + data)

    def replace(self, node: str, session: str) -> None:
        """Tell another node that a session of its has been replaced."""
        self._put(node, _ITEM.pack(_REPLACED, session.encode(), 0))

    def _put(self, node: str, item: bytes) -> None:
        if self._queued >= MAX_QUEUED:
            self._receiver.frames_dropped(1)
            return
        self._queued += 1
        queue = self._queues.get(node)
        if queue is None:
            self._queues[node] = [item]
            self._wanted.set()
        else:
            queue.append(item)

    async def run_sender(self) -> None:
        """Publish what gathers, until cancelled. What cannot be published is dropped: frames do not keep."""
        backoff = Backoff(0.05, 1.0)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            queues, self._queues, self._queued = self._queues, {}, 0
            try:
                await self._publish(queues)
                backoff.reset()
            except RedisError as error:
                dropped = sum(len(queue) for queue in queues.values())
                self._receiver.frames_dropped(dropped)
                _log.warning("bus_publish_failed", error=str(error), dropped=dropped)
                await asyncio.sleep(backoff.next())

    async def _publish(self, queues: dict[str, list[bytes]]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for node, items in queues.items():
                number = self._numbers[node] = self._numbers.get(node, 0) + 1
                pipe.publish(keys.inbox(node), _pack(self._name, number, items))
            await pipe.execute()

    async def run_prober(self) -> None:
        """Send probes to the own inbox, until cancelled."""
        while True:
            try:
                await self._client.publish(keys.inbox(self._node), b"?" + self._name.encode())
            except RedisError as error:
                _log.debug("probe_not_sent", error=str(error))
            await asyncio.sleep(PROBE_SECONDS)

    # --- in ---

    async def run_receiver(self) -> None:
        """Receive until cancelled; a subscription that is lost or deaf is made anew."""
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                await self._subscription(backoff)
            except RedisError as error:
                delay = backoff.next()
                _log.warning(
                    "inbox_lost", error=str(error) or type(error).__name__, retry_in_ms=round(delay * 1000)
                )
                await asyncio.sleep(delay)

    async def _subscription(self, backoff: Backoff) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(keys.inbox(self._node))
            listening_since = self._monotonic()
            while True:
                message = await pubsub.get_message(timeout=PROBE_SECONDS)
                if message is not None and message["type"] == "subscribe":
                    backoff.reset()
                    self._seen.clear()
                    self._receiver.inbox_gap()
                elif message is not None and message["type"] == "message":
                    self._receive(message["data"])
                if self._monotonic() - max(listening_since, self._heard_at) > DEAF_SECONDS:
                    raise ConnectionError("the inbox is deaf")

    def _hear(self) -> None:
        self._deaf_before = self.deaf_seconds
        self._heard_at = self._monotonic()
        self.heard = True

    def _receive(self, data: bytes) -> None:
        try:
            if data[0] == _PACKET:
                self._unpack(data)
            elif data[0] == _NOTICE:
                self._receiver.notice_received(data[1:])
            elif data[0] == _PROBE and data[1:].decode() == self._name:
                self._hear()
        except (IndexError, struct.error, ValueError) as error:
            _log.error("bus_message_unreadable", error=f"{type(error).__name__}: {error}", size=len(data))

    def _unpack(self, data: bytes) -> None:
        at = 2 + data[1]
        self._count(data[2:at].decode(), _NUMBER.unpack_from(data, at)[0])
        at += _NUMBER.size
        end = len(data)
        while at < end:
            kind, session, size = _ITEM.unpack_from(data, at)
            at += _ITEM.size
            if at + size > end:
                raise ValueError("a packet that is cut short")
            if kind == _FRAME:
                self._receiver.frame_received(session.decode(), data[at : at + size])
            elif kind == _REPLACED:
                self._receiver.replaced_received(session.decode())
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

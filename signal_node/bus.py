"""The inbox bus: how nodes reach each other's clients, over Redis pub/sub.

What a caller may assume. `send` never waits and never fails: the frame is in memory until the current round trip
to Redis is over, then everything that has gathered for one node leaves as one PUBLISH, and all nodes' in one write.
Frames from one node to another arrive in the order sent, at most once; they are lost with the connection to Redis,
and new ones are dropped while `MAX_QUEUED` wait. Notices of commits come through the same channel, but are
published by the commit script, and are not ordered against frames.

A packet is `P`, the length of the sender's name and the name, a u64 that counts the sender's packets to this node,
then items of `kind`, the session (16 bytes), a u32 length and the payload. A notice is `N` and its JSON.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol

import structlog
from redis.exceptions import RedisError

from keepline.ops.backoff import Backoff
from keepline.ops.redis import Client
from keepline.room import keys

MAX_QUEUED = 100_000
"""Frames that wait for Redis at the most."""

SESSION_BYTES = 16
_FRAME, _REPLACED = ord("F"), ord("R")
_PACKET, _NOTICE = ord("P"), ord("N")
_ITEM = struct.Struct(f">B{SESSION_BYTES}sI")
_NUMBER = struct.Struct(">Q")
_IDLE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """What comes out of the inbox."""

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame for a session of this node."""

    def replaced_received(self, session: str) -> None:
        """The session's user is held by another connection now."""

    def notice_received(self, data: bytes) -> None:
        """Another node has committed a change to a room that has a side here."""


def notice(payload: bytes) -> bytes:
    """A notice as the commit script publishes it."""
    return b"N" + payload


class Bus:
    """This node's inbox, and the way to the others'. `run_sender` and `run_receiver` are to be run as tasks."""

    def __init__(self, client: Client, node: str, receiver: Receiver, on_drop: Callable[[int], None]) -> None:
        self._client = client
        self._node = node
        self._receiver = receiver
        self._on_drop = on_drop
        self._queues: dict[str, list[bytes]] = {}
        self._queued = 0
        self._numbers: dict[str, int] = {}
        self._wanted = asyncio.Event()
        self.subscribed = False

    # --- out ---

    def send(self, node: str, session: str, data: bytes) -> None:
        """Send a frame to a session of another node."""
        self._put(node, _ITEM.pack(_FRAME, session.encode(), len(data)) + data)

    def replace(self, node: str, session: str) -> None:
        """Tell another node that a session of its has been replaced."""
        self._put(node, _ITEM.pack(_REPLACED, session.encode(), 0))

    def _put(self, node: str, item: bytes) -> None:
        if self._queued >= MAX_QUEUED:
            self._on_drop(1)
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
                self._on_drop(dropped)
                _log.warning("bus_publish_failed", error=str(error), dropped=dropped)
                await asyncio.sleep(backoff.next())

    async def _publish(self, queues: dict[str, list[bytes]]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for node, items in queues.items():
                number = self._numbers[node] = self._numbers.get(node, 0) + 1
                pipe.publish(keys.inbox(node), _pack(self._node, number, items))
            await pipe.execute()

    # --- in ---

    async def run_receiver(self) -> None:
        """Receive until cancelled. Raises RedisError when the subscription is lost; then run it again."""
        try:
            async with self._client.pubsub() as pubsub:
                await pubsub.subscribe(keys.inbox(self._node))
                while True:
                    message = await pubsub.get_message(timeout=_IDLE_SECONDS)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":
                        self.subscribed = True
                    elif message["type"] == "message":
                        self._receive(message["data"])
        finally:
            self.subscribed = False

    def _receive(self, data: bytes) -> None:
        try:
            if data[0] == _PACKET:
                self._unpack(data)
            elif data[0] == _NOTICE:
                self._receiver.notice_received(data[1:])
        except (IndexError, struct.error, ValueError) as error:
            _log.error("bus_message_unreadable", error=f"{type(error).__name__}: {error}", size=len(data))

    def _unpack(self, data: bytes) -> None:
        at = 2 + data[1] + _NUMBER.size
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


def _pack(node: str, number: int, items: list[bytes]) -> bytes:
    name = node.encode()
    return b"".join((bytes((_PACKET, len(name))), name, _NUMBER.pack(number), *items))

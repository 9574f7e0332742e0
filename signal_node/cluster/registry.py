"""The registry of nodes. A node without heartbeat for longer than a heartbeat lasts is dead."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from keepline.ops.redis.client import Client
from keepline.ops.redis.cluster_time import read_time
from keepline.ops.redis.scripts import Script, Value, text, translated
from keepline.room import keys
from signal_node.cluster.process import machine

HEARTBEAT_SECONDS = 1.0
HEARTBEAT_TTL_MS = 5_000
"""TTL of a heartbeat. With the interval and one check, a dead node is detected within 6 s."""

STALE_MS = 3 * HEARTBEAT_TTL_MS
"""Age that no live node's heartbeat has, however wrong its clock is."""


@dataclass(frozen=True, slots=True)
class Namesake:
    """The heartbeat of another process with this node's name, and its remaining TTL in ms."""

    beat: bytes
    ttl_ms: int

    @property
    def status(self) -> Mapping[str, Any]:
        """Its content."""
        status: Mapping[str, Any] = orjson.loads(self.beat)
        return status


class Registry:
    """The nodes, as stored in Redis."""

    def __init__(self, client: Client, node: str) -> None:
        self.process = secrets.token_hex(8)
        self._client = client
        self._node = node
        self._beat = Script(client, __package__, "beat.lua")
        self._swap = Script(client, __package__, "swap.lua")

    async def beat(self, status: Mapping[str, Any], now: int, replaces: bytes = b"") -> Namesake | None:
        """Write this node's heartbeat, unless another process has its name; then return that process' heartbeat.

        `replaces` is the heartbeat of such a process that has ended. Raises StoreUnavailable.
        """
        arguments: list[Value] = [self.process, orjson.dumps(self._own(status)), HEARTBEAT_TTL_MS, replaces]
        call = [keys.node(self._node)], arguments
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                self._beat.add_to(pipe, call)
                pipe.zadd(keys.nodes(), {self._node: now})
                pipe.hset(keys.addresses(), self._node, status.get("ops", ""))
                answers = await pipe.execute(raise_on_error=False)
            (found, *others) = [*await self._beat.completed([call], answers[:1]), *answers[1:]]
            for answer in (found, *others):
                if isinstance(answer, RedisError):
                    raise answer
        return Namesake(*found) if found else None

    def _own(self, status: Mapping[str, Any]) -> dict[str, Any]:
        return {"process": self.process, "machine": machine(), **status}

    async def leave(self) -> None:
        """Remove this node, which holds nothing, unless another process has its name. Raises StoreUnavailable."""
        with translated():
            beat = await self._client.get(keys.node(self._node))
            if beat is not None and orjson.loads(beat).get("process") != self.process:
                return
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(keys.node(self._node))
                self._forget(pipe, self._node)
                await pipe.execute()

    def _forget(self, pipe: Pipeline, node: str) -> None:
        pipe.zrem(keys.nodes(), node)
        pipe.hdel(keys.addresses(), node)

    async def nodes(self, now: int = 0) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
        """Live nodes with the content of their heartbeats, and dead ones that are not cleaned up yet, in order.

        A heartbeat outlives its TTL if Redis' clock is set back: one written long before `now` belongs to a dead node.
        Raises StoreUnavailable.
        """
        with translated():
            known: Any = await self._client.zrange(keys.nodes(), 0, -1, withscores=True)
            written = {text(name): at for name, at in known}
            names = sorted(written)
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(keys.node(name))
                found = await pipe.execute() if names else []
        live = {
            name: orjson.loads(status)
            for name, status in zip(names, found, strict=True)
            if status and written[name] > now - STALE_MS
        }
        return live, [name for name in names if name not in live]

    async def forget(self, node: str) -> None:
        """Remove a dead node. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                self._forget(pipe, node)
                await pipe.execute()

    async def last_beats(self) -> list[float]:
        """When the other nodes wrote their last heartbeats, in ms of the cluster's time. Raises StoreUnavailable."""
        with translated():
            found: Any = await self._client.zrange(keys.nodes(), 0, -1, withscores=True)
        return [float(at) for name, at in found if text(name) != self._node]

    async def held(self, partition: int, node: str, at_most: int) -> list[str]:
        """Some of the partition's rooms that have a side on the node. Raises StoreUnavailable."""
        with translated():
            _, found = await self._client.sscan(keys.held(partition, node), count=at_most)
        return [text(room_id) for room_id in found]

    async def all_held(self, partition: int, node: str) -> list[str]:
        """All of the partition's rooms that have a side on the node. Raises StoreUnavailable."""
        with translated():
            found = await self._client.smembers(keys.held(partition, node))
        return sorted(text(room_id) for room_id in found)

    async def hold(self, partition: int, node: str, room_id: str) -> None:
        """Add the room to the node's index. Raises StoreUnavailable."""
        with translated():
            await self._client.sadd(keys.held(partition, node), room_id)

    async def remove_held(self, partition: int, node: str, room_id: str) -> None:
        """Remove the room from the node's index. Raises StoreUnavailable."""
        with translated():
            await self._client.srem(keys.held(partition, node), room_id)

    async def lease(self, partition: int, name: str, ttl_ms: int) -> bool:
        """Take or renew the lease for work that one node does at a time. Raises StoreUnavailable."""
        key = keys.lease(partition, name)
        with translated():
            if await self._client.set(key, self._node, nx=True, px=ttl_ms):
                return True
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(key)
                pipe.pttl(key)
                holder, left_ms = await pipe.execute()
            if holder == self._node.encode():
                return bool(await self._client.pexpire(key, ttl_ms))
            if left_ms > ttl_ms:  # Redis' clock was set back, and the holder may be dead
                await self._client.pexpire(key, ttl_ms)
            return False

    async def end_lease(self, partition: int, name: str) -> None:
        """Release the lease, unless another node has it already. Raises StoreUnavailable."""
        await self._swap.run([keys.lease(partition, name)], [self._node, ""])

    async def time(
        self, monotonic: Callable[[], float] = time.monotonic
    ) -> tuple[float, float, float, bytes | None]:
        """Redis' time in seconds since 1970, when it was asked and answered, and the stored correction.

        Raises StoreUnavailable.
        """
        with translated():
            asked = monotonic()
            seconds, correction = await read_time(self._client)
            return seconds, asked, monotonic(), correction

    async def correct_clock(self, expected: bytes | None, correction: bytes) -> bool:
        """Store another correction; False if the stored one is not the expected one. Raises StoreUnavailable."""
        return bool(await self._swap.run([keys.clock()], [expected or b"", correction]))

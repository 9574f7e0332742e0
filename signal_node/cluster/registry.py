"""Which nodes there are. A node that is silent for longer than its heartbeat lives is dead."""

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
"""The life of a heartbeat: with the interval and one look of a reaper a dead node is noticed within 6 s."""

STALE_MS = 3 * HEARTBEAT_TTL_MS
"""The age of a heartbeat that no living node's has, however far its clock is off."""


@dataclass(frozen=True, slots=True)
class Namesake:
    """The heartbeat of another process that has this node's name, and for how many ms more it lives."""

    beat: bytes
    ttl_ms: int

    @property
    def status(self) -> Mapping[str, Any]:
        """What it says."""
        status: Mapping[str, Any] = orjson.loads(self.beat)
        return status


class Registry:
    """The nodes, as Redis knows them."""

    def __init__(self, client: Client, node: str) -> None:
        self.process = secrets.token_hex(8)
        self._client = client
        self._node = node
        self._beat = Script(client, __package__, "beat.lua")
        self._swap = Script(client, __package__, "swap.lua")

    async def beat(self, status: Mapping[str, Any], now: int, replaces: bytes = b"") -> Namesake | None:
        """Say that this node lives, and how it is, unless another process has its name: then which one.

        `replaces` is the heartbeat of such a process that is gone. Raises StoreUnavailable.
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
        """Say that this node is gone and holds nothing, unless another has its name. Raises StoreUnavailable."""
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
        """Live nodes with what they say of themselves, and dead ones that have not been cleared away, in order.

        A heartbeat lives on when Redis' clock is set back: one that was written long before `now` is a dead node's.
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
        """Clear a dead node away. Raises StoreUnavailable."""
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
        """Rooms of the partition that have a side on the node, some of them. Raises StoreUnavailable."""
        with translated():
            _, found = await self._client.sscan(keys.held(partition, node), count=at_most)
        return [text(room_id) for room_id in found]

    async def all_held(self, partition: int, node: str) -> list[str]:
        """All rooms of the partition that have a side on the node. Raises StoreUnavailable."""
        with translated():
            found = await self._client.smembers(keys.held(partition, node))
        return sorted(text(room_id) for room_id in found)

    async def hold(self, partition: int, node: str, room_id: str) -> None:
        """Note that the room has a side on the node. Raises StoreUnavailable."""
        with translated():
            await self._client.sadd(keys.held(partition, node), room_id)

    async def remove_held(self, partition: int, node: str, room_id: str) -> None:
        """Note that the room has no side on the node. Raises StoreUnavailable."""
        with translated():
            await self._client.srem(keys.held(partition, node), room_id)

    async def lease(self, partition: int, name: str, ttl_ms: int) -> bool:
        """Take, or go on with, a piece of work that one node is to do at a time. Raises StoreUnavailable."""
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
        """Let others have it, unless one has it already. Raises StoreUnavailable."""
        await self._swap.run([keys.lease(partition, name)], [self._node, ""])

    async def time(
        self, monotonic: Callable[[], float] = time.monotonic
    ) -> tuple[float, float, float, bytes | None]:
        """Redis' time in seconds since 1970, when it was asked and answered, and the correction as it is kept.

        Raises StoreUnavailable.
        """
        with translated():
            asked = monotonic()
            seconds, correction = await read_time(self._client)
            return seconds, asked, monotonic(), correction

    async def correct_clock(self, expected: bytes | None, correction: bytes) -> bool:
        """Keep another correction; False when one is there that was not expected. Raises StoreUnavailable."""
        return bool(await self._swap.run([keys.clock()], [expected or b"", correction]))

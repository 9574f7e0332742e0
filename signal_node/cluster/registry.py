"""Which nodes there are. A node that is silent for longer than its heartbeat lives is dead."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import text, translated
from keepline.room import keys

HEARTBEAT_SECONDS = 1.0
HEARTBEAT_TTL_MS = 5_000
"""The life of a heartbeat: with the interval and one look of a reaper a dead node is noticed within 6 s."""


class Registry:
    """The nodes, as Redis knows them."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node

    async def beat(self, status: Mapping[str, Any], now: int) -> None:
        """Say that this node lives, and how it is. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.set(keys.node(self._node), orjson.dumps(status), px=HEARTBEAT_TTL_MS)
                pipe.zadd(keys.nodes(), {self._node: now})
                await pipe.execute()

    async def leave(self) -> None:
        """Say that this node is gone and holds nothing. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.delete(keys.node(self._node))
                pipe.zrem(keys.nodes(), self._node)
                await pipe.execute()

    async def nodes(self) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
        """Live nodes with what they say of themselves, and dead ones that have not been cleared away, in order.

        Raises StoreUnavailable.
        """
        with translated():
            names = sorted(text(name) for name in await self._client.zrange(keys.nodes(), 0, -1))
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.get(keys.node(name))
                found = await pipe.execute() if names else []
        live = {name: orjson.loads(status) for name, status in zip(names, found, strict=True) if status}
        return live, [name for name in names if name not in live]

    async def forget(self, node: str) -> None:
        """Clear a dead node away. Raises StoreUnavailable."""
        with translated():
            await self._client.zrem(keys.nodes(), node)

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

    async def let_go(self, partition: int, node: str, room_id: str) -> None:
        """Note that the room has no side on the node. Raises StoreUnavailable."""
        with translated():
            await self._client.srem(keys.held(partition, node), room_id)

    async def lease(self, partition: int, name: str, ttl_ms: int) -> bool:
        """Take, or go on with, a piece of work that one node is to do at a time. Raises StoreUnavailable."""
        key = keys.lease(partition, name)
        with translated():
            if await self._client.set(key, self._node, nx=True, px=ttl_ms):
                return True
            return bool(await self._client.get(key) == self._node.encode())

    async def end_lease(self, partition: int, name: str) -> None:
        """Let others have it. Raises StoreUnavailable."""
        with translated():
            await self._client.delete(keys.lease(partition, name))

    async def time(self, monotonic: Callable[[], float] = time.monotonic) -> tuple[float, float, float]:
        """Redis' time in seconds since 1970, and when it was asked and answered. Raises StoreUnavailable."""
        with translated():
            asked = monotonic()
            seconds, microseconds = await self._client.time()
            return seconds + microseconds / 1e6, asked, monotonic()

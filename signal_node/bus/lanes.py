"""The pub/sub channels of the nodes' inboxes.

On a single Redis, each node has one. On a cluster, a script can only publish on the shard of its keys, so each node has
one for every partition (sharded pub/sub). These are the lanes between nodes: one on a single Redis, one per partition
on a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from keepline.ops.redis.client import Client, is_cluster, subscribed
from keepline.ops.redis.subscription import Subscription
from keepline.room import keys

T = TypeVar("T")

SUBSCRIBED = ("subscribe", "ssubscribe")
MESSAGE = ("message", "smessage")
MOVED = "sunsubscribe"
"""What a server says about a channel whose slot it has given away."""


class Channels:
    """The channels of all nodes on one Redis or cluster."""

    def __init__(self, client: Client, partitions: int) -> None:
        self._client = client
        self.sharded = is_cluster(client)
        self.lanes = partitions if self.sharded else 1
        self.command = "SPUBLISH" if self.sharded else "PUBLISH"

    def name(self, node: str, partition: int) -> str:
        """The channel for notices about a partition's rooms to a node."""
        return keys.inbox(node, partition if self.sharded else None)

    async def publish(self, lane: int, node: str, data: bytes) -> None:
        """Send data to a node. Raises RedisError."""
        publish = self._client.spublish if self.sharded else self._client.publish
        await publish(self.name(node, lane), data)

    async def publish_to_shard(self, lane: int, packets: Iterable[tuple[str, bytes]]) -> list[int]:
        """Send data to nodes of a cluster in one write, and return the number of subscribers for each. Raises
        RedisError.
        """
        async with self._client.pipeline(transaction=False) as pipe:
            for node, data in packets:
                pipe.spublish(self.name(node, lane), data)
            return await pipe.execute()

    def subscribed(self, node: str, lane: int) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe to a node's inbox on one lane. Raises RedisError."""
        return subscribed(self._client, self.name(node, lane))


async def on_each_lane(lanes: Iterable[T], work: Callable[[T], Coroutine[Any, Any, None]]) -> None:
    """Run a task for each lane, so that none waits for another, until cancelled or until one fails."""
    async with asyncio.TaskGroup() as tasks:
        for lane in lanes:
            tasks.create_task(work(lane))

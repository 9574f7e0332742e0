"""Whether each partition of Redis still has its data.

A partition without epoch has lost its data, or never had any. Both cases are treated alike (see `recovery`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import text, translated
from keepline.room import keys

RESTORED_SECONDS = 60


class Epochs:
    """The epochs of all partitions."""

    def __init__(self, client: Client, partitions: int) -> None:
        self._client = client
        self._partitions = partitions

    async def read(self) -> list[bytes | None]:
        """The epoch of each partition; None for one that has lost its data. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for partition in range(self._partitions):
                    pipe.get(keys.epoch(partition))
                return list(await pipe.execute())

    async def begin(self, partitions: Iterable[int]) -> None:
        """Declare partitions restored. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for partition in partitions:
                    pipe.set(keys.epoch(partition), secrets.token_hex(8), nx=True)
                await pipe.execute()

    async def note_put_back(self, partition: int, node: str) -> None:
        """Note that this node has written back what it holds of the partition. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.sadd(keys.restored(partition), node)
                pipe.expire(keys.restored(partition), RESTORED_SECONDS)
                await pipe.execute()

    async def have_put_back(self, partition: int) -> set[str]:
        """The nodes that have written back what they hold. Raises StoreUnavailable."""
        with translated():
            members = await self._client.smembers(keys.restored(partition))
        return {text(member) for member in members}

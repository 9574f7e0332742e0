"""The number of partitions of a Redis: the first program that starts decides it, for good."""

from __future__ import annotations

from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import Client
from keepline.room import keys


async def agree_on_partitions(client: Client, wanted: int = keys.DEFAULT_PARTITIONS) -> int:
    """Return the stored number, which is `wanted` if there was none. Raises CannotRun if it is not a number from 1."""
    await client.set(keys.partitions(), wanted, nx=True)
    written = await client.get(keys.partitions())
    if written is None:
        return wanted
    if not written.isdigit() or int(written) < 1:
        raise CannotRun(f"{keys.partitions()} should be a whole number from 1, is {written!r}")
    return int(written)

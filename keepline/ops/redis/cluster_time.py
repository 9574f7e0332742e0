"""The cluster's clock: Redis' time without its steps.

Deadlines are times of day. If Redis' clock were set forward by an hour, all calls would end at once; set back, absent
sides would be waited for until that hour has passed again. So steps are removed: nodes detect them with their monotonic
clocks, and agree in Redis on a correction (see `signal_node.cluster.clock_sync`). Because the clock was set for a
reason, the correction fades: the cluster's clock runs a hundredth faster or slower until it equals Redis' again.
"""

from __future__ import annotations

from dataclasses import dataclass

from keepline.ops.redis.client import Client
from keepline.room import keys

FADES = 0.01
"""Seconds of a correction that fade per second."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The cluster's clock was `ahead_ms` ahead of Redis' (behind if negative) when Redis' was `at_ms`."""

    ahead_ms: int = 0
    at_ms: int = 0

    def seconds(self, redis_seconds: float) -> float:
        """What to add to Redis' time."""
        left = abs(self.ahead_ms) / 1_000 - FADES * max(0.0, redis_seconds - self.at_ms / 1_000)
        return max(0.0, left) if self.ahead_ms > 0 else -max(0.0, left)

    def encode(self) -> bytes:
        """The form in Redis."""
        return b"%d %d" % (self.ahead_ms, self.at_ms)


def decode_correction(value: bytes | None) -> Correction:
    """The correction stored in Redis; none if there is none, or if it is unreadable."""
    try:
        ahead_ms, at_ms = (value or b"0 0").split()
        return Correction(int(ahead_ms), int(at_ms))
    except ValueError:
        return Correction()


async def read_time(client: Client) -> tuple[float, bytes | None]:
    """Redis' time in seconds since 1970, and the stored correction. Raises RedisError."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.get(keys.clock())
        (seconds, microseconds), correction = await pipe.execute()
    return seconds + microseconds / 1e6, correction


async def cluster_ms(client: Client) -> int:
    """The cluster's time in ms since 1970. Raises RedisError."""
    seconds, kept = await read_time(client)
    return round((seconds + decode_correction(kept).seconds(seconds)) * 1_000)

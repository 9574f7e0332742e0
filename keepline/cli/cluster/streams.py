"""The persisters' backlog: the event streams and their consumer group in Redis."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from keepline.cli.cluster.access import Reach
from keepline.ops.redis.cluster_time import read_time
from keepline.room import keys

GROUP = "persister"
"""The consumer group of the persisters."""

MAX_STUCK = 1_000


@dataclass(slots=True)
class Lag:
    """The events that are not in Postgres yet. `oldest_ms` is the age of the oldest."""

    unread: int = 0
    pending: int = 0
    dead_letters: int = 0
    oldest_ms: int = 0


async def lag(reach: Reach) -> Lag:
    """The backlog over all partitions. Raises RedisError."""
    found = Lag()
    seconds, _ = await read_time(reach.redis)  # entry ids are times by Redis' own clock
    now = seconds * 1_000
    for partition in await reach.partitions():
        stream = keys.events(partition)
        found.dead_letters += await reach.redis.xlen(keys.dead_letters(partition))
        group = await _group(reach, stream)
        if group is None:
            first: Any = await reach.redis.xrange(stream, count=1)
            found.unread += await reach.redis.xlen(stream)
        else:
            found.unread += group["lag"] or 0
            found.pending += group["pending"]
            first = await _oldest(reach, stream, group)
        if first:
            found.oldest_ms = max(found.oldest_ms, round(now - int(first[0][0].partition(b"-")[0])))
    return found


async def stuck(reach: Reach, idle_ms: int) -> dict[str, int]:
    """Events that were read at least `idle_ms` ago and not written, by persister. Raises RedisError.

    Counts at most a thousand per partition.
    """
    found: dict[str, int] = {}
    for partition in await reach.partitions():
        stream = keys.events(partition)
        if await _group(reach, stream) is None:
            continue
        entries: Any = await reach.redis.xpending_range(stream, GROUP, "-", "+", MAX_STUCK, idle=idle_ms)
        for entry in entries:
            name = entry["consumer"].decode()
            found[name] = found.get(name, 0) + 1
    return found


async def _group(reach: Reach, stream: str) -> dict[str, Any] | None:
    try:
        groups: Any = await reach.redis.xinfo_groups(stream)
    except ResponseError:  # this stream does not exist yet
        return None
    return next((group for group in groups if group["name"] == GROUP.encode()), None)


async def _oldest(reach: Reach, stream: str, group: dict[str, Any]) -> Any:
    """The oldest unacknowledged entry, from XRANGE."""
    if group["pending"]:
        pending: Any = await reach.redis.xpending(stream, GROUP)
        return [(pending["min"], {})]
    last = group["last-delivered-id"].decode()
    return await reach.redis.xrange(stream, min=f"({last}", count=1)

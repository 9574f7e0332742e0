"""The presence records of live persisters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepline.cli.cluster.access import Reach
from keepline.ops.redis.cluster_time import cluster_ms
from keepline.room import keys
from keepline.room.presence import SILENT_MS, Presence, decode_presence


async def living_persisters(reach: Reach) -> dict[str, Presence]:
    """The persisters that reported recently, by name. Raises RedisError, OSError."""
    found: Any = await reach.redis.hgetall(keys.persisters())
    presences = {name.decode(): decode_presence(value) for name, value in found.items()}
    since = await cluster_ms(reach.redis) - SILENT_MS
    return {name: one for name, one in presences.items() if one.at > since}


def problems_of_persisters(living: Mapping[str, Presence]) -> list[str]:
    """Their problems, one line each."""
    problems = [
        f"persister {name} cannot write: {one.error}" for name, one in sorted(living.items()) if one.error
    ]
    if writes_to_several(living):
        problems.append(
            f"persisters {', '.join(sorted(living))} share one Redis and write to different databases:"
            " each has only some of the rooms; set the same DATABASE_URL for all of them"
        )
    return problems


def nobody_writes(living: Mapping[str, Presence], waiting: int) -> str | None:
    """What to tell when events wait and no persister runs."""
    if living or not waiting:
        return None
    return f"{waiting} events wait, and no persister has reported for {SILENT_MS // 1_000} s"


def writes_to_several(living: Mapping[str, Presence]) -> bool:
    """Whether they write to different databases."""
    return len({one.database for one in living.values() if one.database is not None}) > 1


def who_is_late(living: Mapping[str, Presence]) -> str:
    """The message if Postgres is behind: the last error of each persister that has one."""
    if not living:
        return "is a persister running?"
    failing = [f"{name} says: {one.error}" for name, one in sorted(living.items()) if one.error]
    return "; ".join(failing) or f"{', '.join(sorted(living))} cannot keep up"

"""Changes as a node makes them, and all that a Redis holds, to compare."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from keepline.ops.redis.client import Client, servers
from keepline.room.commands import Command
from keepline.room.deadlines import due
from keepline.room.effects import Posted
from keepline.room.record import Room
from keepline.room.state import apply
from keepline.room.writes import written
from signal_node.rooms.store import Change
from tests.unit.signal_node.calls import RULES, T0

_counts = itertools.count(1)


def change(
    before: Room | None,
    command: Command,
    *,
    now: int = T0,
    notices: Mapping[str, bytes] | None = None,
    by: str = "node-1",
) -> Change:
    """The change that a command makes of a room."""
    after, effects = apply(before, command, now, RULES)
    after = written(before, after, f"{by}:test:{next(_counts)}")
    deadline = due(after, RULES)
    return Change(
        kind=command.kind,
        expected_version=0 if before is None else before.version,
        before=before,
        after=after,
        message=next((effect.message for effect in effects if isinstance(effect, Posted)), None),
        due_at=None if deadline is None else deadline.at,
        notices=notices or {},
    )


async def contents(client: Client) -> dict[bytes, Any]:
    """Every key with its value; entries of streams without their ids, where those are times."""
    found: dict[bytes, Any] = {}
    names: list[Any] = [name for server in await servers(client) for name in await server.keys()]
    for key in sorted(names):
        found[key] = await _value(client, key)
    return found


async def _value(client: Any, key: bytes) -> Any:
    match await client.type(key):
        case b"string":
            return await client.get(key)
        case b"set":
            return await client.smembers(key)
        case b"zset":
            return await client.zrange(key, 0, -1, withscores=True)
        case b"hash":
            return await client.hgetall(key)
        case b"stream":
            return [fields for _, fields in await client.xrange(key)]
        case other:
            raise AssertionError(f"{key!r} is a {other!r}")

"""Clusters of the first releases, whose keys have no prefix: renames their keys once they are no longer used.

A program checks for such a cluster at startup if its own prefix is the default. While a node of that cluster is live,
the program refuses to start: two clusters in one Redis that do not know each other would divide the rooms between them.
If none is live, it renames the keys. All programs may do so at once: each continues only after it finds nothing more to
rename. The epoch of the first partition identifies such a cluster, and is renamed last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import structlog
from redis.exceptions import ResponseError

from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import Client, servers
from keepline.room import keys

NODES_DIE_SECONDS = 6.0
"""Slightly longer than the last heartbeat of a dead node lasts."""

USER_SECONDS = 24 * 3600
_PAGE = 500
_LOOK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


async def adopt(client: Client, nodes_die_seconds: float = NODES_DIE_SECONDS) -> None:
    """Rename the keys of a stopped cluster without prefix, if there is one. Raises CannotRun, RedisError."""
    if keys.prefix() != keys.DEFAULT_PREFIX or not await is_unprefixed(client):
        return
    living = await _living_after(client, nodes_die_seconds)
    if living:
        raise CannotRun(
            f"nodes of an earlier release ({', '.join(living)}) use this Redis with keys that have no prefix: to go on "
            "beside them, set KEEPLINE_REDIS_PREFIX=none for all programs; to have the keys moved, stop them first"
        )
    moved = await _move(client)
    _log.info("keys_moved", prefix=keys.prefix(), keys=moved)


async def is_unprefixed(client: Client) -> bool:
    """Whether there is a cluster whose keys have no prefix. Raises RedisError."""
    try:
        return bool(await client.exists(keys.UNPREFIXED_EPOCH))
    except ResponseError:  # such as NOPERM: keys that this user may not read are not its cluster's
        return False


async def _living_after(client: Client, seconds: float) -> list[str]:
    """The nodes of that cluster that are still live after a while."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while living := await _living(client):
        if loop.time() >= give_up_at:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return living


async def _living(client: Client) -> list[str]:
    return [name for name in await _nodes(client) if await client.exists(keys.unprefixed_node(name))]


async def _nodes(client: Client) -> dict[str, float]:
    try:
        found: Any = await client.zrange(keys.UNPREFIXED_NODES, 0, -1, withscores=True)
    except ResponseError:  # it is not ours
        return {}
    return {name.decode(): float(at) for name, at in found}


async def _move(client: Client) -> int:
    dead = await _nodes(client)
    if dead:
        await client.zadd(keys.nodes(), dead)
    moved, epochs = 0, []
    async for names in _pages(client, keys.UNPREFIXED_USERS):
        await _copy_users(client, [name.decode() for name in names])
    async for names in _pages(client, keys.UNPREFIXED_ROOMS):
        epochs += [name for name in names if name.endswith(b":epoch")]
        moved += await _rename(client, [name for name in names if not name.endswith(b":epoch")])
    first = keys.UNPREFIXED_EPOCH.encode()
    await _rename(client, [name for name in epochs if name != first])
    await _rename(client, [first])
    await client.delete(first)  # of a cluster that already has an epoch with the prefix
    return moved + len(epochs)


async def _rename(client: Client, names: Sequence[bytes]) -> int:
    """Rename keys of partitions, except those that another program has renamed already."""
    if not names:
        return 0
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.renamenx(name, keys.prefix().encode() + name)
        answers = await pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and "no such key" not in str(answer):
            raise answer
    return sum(answer is True for answer in answers)


async def _copy_users(client: Client, names: Sequence[str]) -> None:
    """Copy those of these keys that are ours: on a cluster they cannot be renamed, and an app may have keys with such
    names.
    """
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            (pipe.smembers if name.endswith(":rooms") else pipe.get)(name)
        values = await pipe.execute(raise_on_error=False)
    async with client.pipeline(transaction=False) as pipe:
        for name, value in zip(names, values, strict=True):
            if isinstance(value, set) and value:
                pipe.sadd(keys.prefix() + name, *value)
                pipe.expire(keys.prefix() + name, USER_SECONDS)
            elif isinstance(value, bytes) and _is_holder(value):
                pipe.set(keys.prefix() + name, value, ex=USER_SECONDS, nx=True)
        await pipe.execute()


def _is_holder(value: bytes) -> bool:
    try:
        held = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return isinstance(held, dict) and held.keys() >= {"node", "session", "resume"}


async def _pages(client: Client, pattern: str) -> AsyncIterator[list[bytes]]:
    for server in await servers(client):
        cursor: Any = 0
        while True:
            names: Any
            cursor, names = await server.scan(cursor, match=pattern, count=_PAGE)
            if names:
                yield names
            if cursor == 0:
                break

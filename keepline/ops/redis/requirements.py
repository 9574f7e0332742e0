"""Checks at startup what a program needs from Redis: the version, and the rights of its user.

Each command is tried on an unused key and channel with the cluster's own prefix. Redis checks rights before values, so
any answer other than NOPERM shows that the command is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import Client, is_cluster, servers, subscribed
from keepline.room import keys

OLDEST = (7, 0)
"""The oldest supported version of Redis. Every version of Valkey is newer."""

_BOTH = "GET k|SET k 1 PX 1000|EXISTS k|DEL k|XADD k * f v|XLEN k|XRANGE k - +|PTTL k"
_SCRIPTS = "EVAL return(1) 1 k|EVALSHA 0000000000000000000000000000000000000000 1 k"
_NODE = (
    "MGET k|EXPIRE k 1|PEXPIRE k 1|SADD k 1|SREM k 1|SCARD k|SISMEMBER k 1|SMEMBERS k|SSCAN k 0|"
    "ZADD k 1 1|ZREM k 1|ZCARD k|ZRANGE k 0 -1|ZRANGEBYSCORE k 0 1|ZREMRANGEBYSCORE k 0 1|ZREMRANGEBYRANK k 0 1|"
    "HSET k f 1|HDEL k f|HGETALL k|TIME"
)
_PERSISTER = (
    "XGROUP CREATE k g 0|XREADGROUP GROUP g c COUNT 1 STREAMS k >|XACK k g 1-1|XAUTOCLAIM k g c 1000 0-0|"
    "XINFO GROUPS k|XINFO CONSUMERS k g|XPENDING k g|MULTI|EXEC|XTRIM k MAXLEN 1|XGROUP DELCONSUMER k g c|"
    "HSET k f 1|HDEL k f|HGETALL k|TIME"
)

_TRANSACTION = ("MULTI", "EXEC")


async def require_for_node(client: Client) -> None:
    """Check the requirements of a node. Raises CannotRun with everything that is missing; RedisError if Redis
    is away.
    """
    await _require(client, f"{_BOTH}|{_SCRIPTS}|{_NODE}")
    await _require_channel(client)


async def require_for_persister(client: Client) -> None:
    """Check the requirements of a persister. Raises CannotRun with everything that is missing; RedisError if Redis is
    away.
    """
    await _require(client, f"{_BOTH}|{_SCRIPTS}|{_PERSISTER}")


async def _require(client: Client, commands: str) -> None:
    for server in await servers(client):
        await _require_version(server)
    async with client.pipeline(transaction=False) as pipe:
        for command in commands.split("|"):
            if command in _TRANSACTION and is_cluster(client):
                continue  # on a cluster, each transaction is on one server
            pipe.execute_command(*_words(command))
        pipe.delete(keys.scratch())
        answers = await pipe.execute(raise_on_error=False)
    refused = [str(answer) for answer in answers if isinstance(answer, NoPermissionError)]
    if refused:
        raise CannotRun(_in_words(refused))


def _words(command: str) -> list[str | bytes]:
    """A command in the form for the client, so that a cluster's client finds its key."""
    name, *rest = command.split()
    if name in ("XINFO", "XGROUP"):
        name, *rest = f"{name} {rest[0]}", *rest[1:]
    return [name, *(keys.scratch() if word == "k" else word.replace("(1)", " 1").encode() for word in rest)]


async def _require_version(server: Any) -> None:
    try:
        hello = await server.execute_command("HELLO")
    except ResponseError:
        return  # what cannot be checked shows in use
    version = hello.get(b"version", b"").decode()
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found and found < OLDEST:
        raise CannotRun(f"Redis is of version {version}: Keepline needs Redis 7.0 or later, or Valkey")


async def _require_channel(client: Client) -> None:
    """Whether the user may publish and subscribe like a node."""
    channel = keys.inbox("check", 0 if is_cluster(client) else None)
    refused = []
    try:
        await (client.spublish if is_cluster(client) else client.publish)(channel, b"")
    except NoPermissionError as error:
        refused.append(str(error))
    try:
        async with subscribed(client, channel) as subscription:
            await subscription.receive(1.0)
    except NoPermissionError as error:
        refused.append(str(error))
    if refused:
        raise CannotRun(_in_words(refused))


def _in_words(refused: Iterable[str]) -> str:
    return (
        f"Redis refuses rights that this program needs: {'; '.join(dict.fromkeys(refused))}. "
        "docs/operations.md has the least that it needs, under Rights in Redis"
    )

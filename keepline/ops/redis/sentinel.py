"""A client of whichever server Sentinels call the master.

Each new connection asks the Sentinels where the master is. A connection is new after any error, and a master that has
become a replica answers writes with an error; so a failover is followed by the first command that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis, Sentinel, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from keepline.ops.redis.connections import telling_losses


class _Pool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master; who finds none free waits."""


class _Master(Redis):
    """A client that closes its Sentinels' clients with itself."""

    sentinels: Sentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await asyncio.gather(*(sentinel.aclose() for sentinel in self.sentinels.sentinels))


def watched_by_sentinels(sentinels: Sequence[Redis], service: str, server_url: str, **options: Any) -> Redis:
    """Return a client of the master of a service.

    `server_url` says how to log in to a server; its host and port are not used. `options` are the pool's.
    """
    manager: Any = cast(Any, Sentinel)([])
    manager.sentinels = list(sentinels)
    login = dict(parse_url(server_url))
    for replaced in ("host", "port"):
        login.pop(replaced)
    secure = login.get("connection_class") is SSLConnection
    kind = SentinelManagedSSLConnection if secure else SentinelManagedConnection
    login["connection_class"] = telling_losses(kind)
    pool = cast(Any, _Pool)(service, manager, **login, **options)
    client = cast(_Master, _Master.from_pool(pool))
    client.sentinels = manager
    return client

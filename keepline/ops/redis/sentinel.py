"""A client of the server that Sentinels call the primary.

Each new connection asks the Sentinels for the primary. An error always leads to a new connection, and a primary that
has become a replica answers writes with an error. So the first command that fails follows a failover.
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
    """Connections to the primary. If none is free, callers wait."""


class _Master(Redis):
    """A client that also closes its Sentinels' clients."""

    sentinels: Sentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await asyncio.gather(*(sentinel.aclose() for sentinel in self.sentinels.sentinels))


def watched_by_sentinels(sentinels: Sequence[Redis], service: str, server_url: str, **options: Any) -> Redis:
    """Return a client of the primary of a service.

    `server_url` has the credentials for a server; its host and port are ignored. `options` are those of the pool.
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

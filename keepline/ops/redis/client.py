"""Clients for Redis or Valkey."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from keepline.ops.redis import urls
from keepline.ops.redis.cluster import Cluster
from keepline.ops.redis.connections import telling_losses
from keepline.ops.redis.sentinel import watched_by_sentinels
from keepline.ops.redis.subscription import Subscription, listen

Client = redis.asyncio.Redis

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
_POOL_WAIT_SECONDS = 5.0
_HEALTH_CHECK_SECONDS = 10


def connect(url: str, *, max_connections: int = 16, answer_seconds: float = ANSWER_SECONDS) -> Client:
    """Return a client for a URL (see `urls`): a server, a Sentinel set's primary, a cluster.

    It sends nothing yet. Values are returned as bytes. `answer_seconds` is the timeout of an answer, so blocking
    commands must block for less. Commands are never repeated implicitly: only the caller knows whether one may run
    twice. At most `max_connections` to each server are open; the next command waits up to 5 s for one.

    Raises ValueError for an invalid URL. Commands raise `redis.exceptions.ConnectionError` or `TimeoutError` if the
    server is away.
    """
    parsed = urls.parse(url)
    pool_options = {"max_connections": max_connections, "timeout": _POOL_WAIT_SECONDS}

    def open_server(server_url: str) -> Client:
        options = _connection_options(server_url, answer_seconds)
        pool = redis.asyncio.BlockingConnectionPool.from_url(server_url, **pool_options, **options)
        pool.connection_class = telling_losses(pool.connection_class)
        client: Client = redis.asyncio.Redis.from_pool(pool)
        return client

    if parsed.kind == "cluster":
        return Cluster(parsed.addresses, lambda address: open_server(parsed.of_server(address)))
    if parsed.kind == "sentinel":
        sentinels = [open_server(parsed.of_sentinel(address)) for address in parsed.addresses]
        server_url = parsed.of_server(parsed.addresses[0])
        options = _connection_options(server_url, answer_seconds)
        return watched_by_sentinels(sentinels, parsed.service, server_url, **pool_options, **options)
    return open_server(url)


def is_cluster(client: Client) -> bool:
    """Whether keys are spread over servers, so that all keys of a command or script must share a hash tag."""
    return isinstance(client, Cluster)


async def servers(client: Client) -> list[Client]:
    """A client of each server that has keys, for commands about servers instead of keys. Raises ConnectionError."""
    return await client.masters() if isinstance(client, Cluster) else [client]


@asynccontextmanager
async def subscribed(client: Client, channel: str) -> AsyncIterator[Subscription]:
    """Subscribe to a channel: on a cluster a shard channel, over its own connection. Raises RedisError."""
    if not isinstance(client, Cluster):
        async with listen(client) as pubsub:
            await pubsub.subscribe(channel)
            yield Subscription(pubsub)
        return
    async with client.open(await client.owner(channel)) as server, listen(server) as pubsub:
        await pubsub.ssubscribe(channel)
        yield Subscription(pubsub)


def _connection_options(url: str, answer_seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "health_check_interval": _HEALTH_CHECK_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        # Only one vendor's cloud supports this protocol; other servers answer its handshake with an error on every
        # connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if urlsplit(url).scheme != "unix":
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _keepalive_options()
    return options


def _keepalive_options() -> dict[int, int]:
    """Detect a vanished host within about 25 s, if the platform supports it."""
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}

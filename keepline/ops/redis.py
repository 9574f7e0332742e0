"""How programs connect to Redis or Valkey."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from keepline.ops.settings import REDIS_SCHEMES

Client = redis.asyncio.Redis

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
_POOL_WAIT_SECONDS = 5.0
_HEALTH_CHECK_SECONDS = 10


def connect(url: str, *, max_connections: int = 16, answer_seconds: float = ANSWER_SECONDS) -> Client:
    """Return a client for a URL: `redis://`, `rediss://` (TLS) or `unix://`. Nothing is sent yet.

    Values come back as bytes. `answer_seconds` bounds the wait for one answer, so blocking commands must
    block for less. A command is never repeated behind the caller's back: whether it may run twice only the
    caller knows. At most `max_connections` are open; the next command waits for one up to 5 s.

    Raises ValueError for another scheme. Commands raise `redis.exceptions.ConnectionError` or `TimeoutError`
    when the server is away.
    """
    if urlsplit(url).scheme not in REDIS_SCHEMES:
        raise ValueError(f"Redis URLs start with {', '.join(f'{s}://' for s in REDIS_SCHEMES)}")
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=_POOL_WAIT_SECONDS,
        **_connection_options(url, answer_seconds),
    )
    client: Client = redis.asyncio.Redis.from_pool(pool)
    return client


def _connection_options(url: str, answer_seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "health_check_interval": _HEALTH_CHECK_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        # A protocol of one vendor's cloud; others answer its handshake with an error on every connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if urlsplit(url).scheme != "unix":
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _keepalive_options()
    return options


def _keepalive_options() -> dict[int, int]:
    """Notice within about 25 s that the other host is gone, where the platform lets us say so."""
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}

"""Listening to one channel, at a third of what the library's `get_message` costs.

The library wraps each message in its retries, its health check and its records of durations, and writes each out for
a debug log that nobody reads. Whoever listens for long sends probes, and subscribes anew when they are not heard:
that needs none of it.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.client import PubSub, Redis
from redis.exceptions import ConnectionError


class Subscription:
    """What comes on a channel. Not made anew by itself: after an error there has to be another."""

    def __init__(self, pubsub: PubSub) -> None:
        """Take what `listen` returned, subscribed."""
        self._pubsub = pubsub

    async def receive(self, seconds: float) -> tuple[str, Any] | None:
        """The next message's kind and data, None after `seconds` without. Raises RedisError."""
        connection: Any = self._pubsub.connection
        if connection is None or not connection.is_connected:
            raise ConnectionError("the subscription has lost its connection")
        answer = await connection.read_response(timeout=seconds, disconnect_on_error=False, push_request=True)
        return None if answer is None else (answer[0].decode(), answer[-1])


def listen(server: Redis) -> PubSub:
    """A subscription of the library's for `Subscription`."""
    return server.pubsub(push_handler_func=_untouched)


async def _untouched(answer: Any) -> Any:
    return answer

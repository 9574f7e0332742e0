"""A subscription to one channel, at a third of the cost of the library's `get_message`.

The library wraps each message in retries, a health check and duration records, and formats it for a debug log. Our
long-lived subscriptions use probes, and subscribe again if these fail, so they need none of that.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.client import PubSub, Redis
from redis.exceptions import ConnectionError


class Subscription:
    """The messages of a channel. It does not reconnect: create another one after an error."""

    def __init__(self, pubsub: PubSub) -> None:
        """Take what `listen` returned, subscribed."""
        self._pubsub = pubsub

    async def receive(self, seconds: float) -> tuple[str, Any] | None:
        """The next message's kind and data; None after `seconds` without one. Raises RedisError."""
        connection: Any = self._pubsub.connection
        if connection is None or not connection.is_connected:
            raise ConnectionError("the subscription has lost its connection")
        answer = await connection.read_response(timeout=seconds, disconnect_on_error=False, push_request=True)
        return None if answer is None else (answer[0].decode(), answer[-1])


def listen(server: Redis) -> PubSub:
    """A subscription of the library, for `Subscription`."""
    return server.pubsub(push_handler_func=_untouched)


async def _untouched(answer: Any) -> Any:
    return answer

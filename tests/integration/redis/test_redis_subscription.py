"""Listening to a channel of a real Valkey."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.ops.redis.subscription import Subscription


async def heard(subscription: Subscription, count: int) -> list[tuple[str, bytes | int]]:
    messages: list[tuple[str, bytes | int]] = []
    while len(messages) < count:
        message = await subscription.receive(5.0)
        assert message is not None
        messages.append(message)
    return messages


async def test_what_is_published_is_heard_in_order_and_untouched(redis_url: str) -> None:
    async with redis.connect(redis_url) as client, redis.subscribed(client, "here") as subscription:
        assert await heard(subscription, 1) == [("subscribe", 1)]
        large = bytes(range(256)) * 4_096
        for data in (b"one", b"", large):
            await client.publish("here", data)
        assert await heard(subscription, 3) == [("message", b"one"), ("message", b""), ("message", large)]


async def test_silence_is_none_and_loses_nothing(redis_url: str) -> None:
    async with redis.connect(redis_url) as client, redis.subscribed(client, "here") as subscription:
        await heard(subscription, 1)
        assert await subscription.receive(0.01) is None
        await client.publish("here", b"after")
        assert await heard(subscription, 1) == [("message", b"after")]


async def test_a_lost_connection_is_an_error_and_stays_one(valkey: Valkey) -> None:
    async with redis.connect(valkey.url) as client, redis.subscribed(client, "here") as subscription:
        await heard(subscription, 1)
        await valkey.kill()
        for _ in range(2):
            with pytest.raises(RedisConnectionError):
                await subscription.receive(5.0)
        await valkey.start()
        async with redis.subscribed(client, "here") as another:
            assert await heard(another, 1) == [("subscribe", 1)]

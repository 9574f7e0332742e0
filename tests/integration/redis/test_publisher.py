"""Publishing over a connection of its own, to a real Valkey."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as AnswerTimeout

from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.ops.redis.client import Client
from signal_node.bus.publisher import RedisPublisher
from tests.helpers.waiting import eventually


@asynccontextmanager
async def publishing(url: str, answer_seconds: float = 5.0) -> AsyncIterator[tuple[Client, RedisPublisher]]:
    client = redis.connect(url)
    publisher = RedisPublisher(client, answer_seconds)
    yield client, publisher
    await publisher.aclose()
    await client.aclose()


async def test_a_batch_arrives_whole_and_in_order(redis_url: str) -> None:
    async with publishing(redis_url) as (client, publisher), client.pubsub() as pubsub:
        await pubsub.subscribe("one", "two")
        batch = [("one", b"%d" % number) for number in range(100)] + [("two", bytes(range(256)))]
        await publisher.publish_all(batch)
        await publisher.publish_all([("one", b"the next batch")])
        heard: list[tuple[str, bytes]] = []
        while len(heard) < len(batch) + 1:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None:
                heard.append((message["channel"].decode(), message["data"]))
        assert heard == [*batch, ("one", b"the next batch")]


async def test_one_connection_serves_all_batches(redis_url: str) -> None:
    async with publishing(redis_url) as (client, publisher):
        before = (await client.info("stats"))["total_connections_received"]
        for _ in range(3):
            await publisher.publish_all([("nobody", b"listens")])
        assert (await client.info("stats"))["total_connections_received"] == before + 1


async def test_a_server_that_came_back_is_connected_to_anew(valkey: Valkey) -> None:
    async with publishing(valkey.url) as (_, publisher):
        await publisher.publish_all([("channel", b"before")])
        await valkey.kill()
        with pytest.raises(RedisConnectionError):
            await publisher.publish_all([("channel", b"meanwhile")])
        await valkey.start()
        await publisher.publish_all([("channel", b"after")])


async def test_a_server_that_does_not_answer_is_not_waited_for(valkey: Valkey) -> None:
    async with publishing(valkey.url, answer_seconds=0.2) as (_, publisher):
        await publisher.publish_all([("channel", b"before")])
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            with pytest.raises(AnswerTimeout, match="no answer to PUBLISH"):
                await publisher.publish_all([("channel", b"meanwhile")])
        finally:
            os.kill(valkey.pid, signal.SIGCONT)

        async def goes_on() -> bool:
            try:
                await publisher.publish_all([("channel", b"after")])
            except RedisError:
                return False
            return True

        await eventually(goes_on, what="the server answers again")


async def test_an_error_among_the_answers_is_not_left_for_the_next_batch(valkey: Valkey) -> None:
    async with publishing(valkey.url) as (client, publisher):
        administer: Any = client
        await administer.execute_command("ACL", "SETUSER", "default", "resetchannels", "&mine")
        with pytest.raises(RedisError, match="channel"):
            await publisher.publish_all([("mine", b"1"), ("others", b"2"), ("mine", b"3")])
        await publisher.publish_all([("mine", b"4")])


async def test_what_was_closed_while_idle_loses_nothing(redis_url: str) -> None:
    """As a server does with `timeout`."""
    async with publishing(redis_url) as (client, publisher), client.pubsub() as pubsub:
        await pubsub.subscribe("one")
        await publisher.publish_all([("one", b"before")])
        await client.client_kill_filter(_type="normal", skipme=True)
        await eventually(lambda: publisher._connection.is_lost, what="the loss is noticed")
        await publisher.publish_all([("one", b"after")])
        heard = []
        while b"after" not in heard:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None:
                heard.append(message["data"])
        assert heard == [b"before", b"after"]

"""What a command says that is written in the moment in which its connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops.redis.client import connect


async def ping(connection: Any) -> Any:
    await connection.send_command("PING")
    return await connection.read_response()


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_loss_is_a_loss_on_every_event_loop(
    redis_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario() -> None:
        client = connect(redis_url)
        try:
            pool: Any = client.connection_pool
            connection = await pool.get_connection()
            assert await ping(connection) == b"PONG"
            connection._writer.transport.abort()
            with pytest.raises(RedisConnectionError):
                await ping(connection)
            await pool.release(connection)
            assert await client.ping(), "the pool goes on with another connection"
        finally:
            await client.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())

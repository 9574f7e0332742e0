"""Publishing over a connection of its own.

The client takes a connection from its pool for every command, and sets a timeout around each write and each answer:
that costs two to three times the command itself. Here one connection stays, and one timeout bounds a batch. The bus
keeps it in use: what is idle for long may be closed by the server, or forgotten by what lies between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import TimeoutError as AnswerTimeout

from keepline.ops.redis.client import ANSWER_SECONDS, Client


class RedisPublisher:
    """Publishes on the server of a client, in order. One batch at a time: it is for one task."""

    def __init__(self, client: Client, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Take a client for where and how to connect. `answer_seconds` is what a batch may take."""
        self._client = client
        self._answer_seconds = answer_seconds
        self._connection: Any = None

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (channel, data) in one write. Raises RedisError; then any part of them may have been published."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                connection = await self._connected()
                commands = [("PUBLISH", *message) for message in messages]
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    await connection.read_response()
        except TimeoutError:
            await self.aclose()
            raise AnswerTimeout(f"no answer to PUBLISH within {self._answer_seconds:g} s") from None
        except BaseException:  # answers may be left, and must not be taken for those of the next batch
            await self.aclose()
            raise

    async def _connected(self) -> Any:
        """The connection, or another when the server has closed it: nothing was written to it since then."""
        if self._connection is not None and not self._connection.is_lost:
            return self._connection
        await self.aclose()
        pool: Any = self._client.connection_pool
        self._connection = pool.make_connection()
        self._connection.socket_timeout = None  # the timeout is ours
        await self._connection.connect()  # by itself it would not ask Sentinels where the master is
        return self._connection

    async def aclose(self) -> None:
        """Close the connection; the next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

"""Publishes over a dedicated connection.

The client takes a connection from its pool for every command, and sets a timeout for each write and each answer, which
costs two to three times the command itself. Here one connection stays open, and one timeout covers a batch. The bus
keeps the connection active: an idle one may be closed by the server, or dropped by a firewall.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import TimeoutError as AnswerTimeout

from keepline.ops.redis.client import ANSWER_SECONDS, Client


class RedisPublisher:
    """Publishes on the server of a client, in order, one batch at a time: for use by a single task."""

    def __init__(self, client: Client, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Connect like `client`. `answer_seconds` is the timeout of a batch."""
        self._client = client
        self._answer_seconds = answer_seconds
        self._connection: Any = None

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (channel, data) in one write. Raises RedisError; any part may have been published then."""
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
        except BaseException:  # answers may be unread, and must not be taken for those of the next batch
            await self.aclose()
            raise

    async def _connected(self) -> Any:
        """The connection, or a new one if the server has closed it; nothing has been written to the old one since."""
        if self._connection is not None and not self._connection.is_lost:
            return self._connection
        await self.aclose()
        pool: Any = self._client.connection_pool
        self._connection = pool.make_connection()
        self._connection.socket_timeout = None  # this class has its own timeout
        await self._connection.connect()  # by default it would not ask Sentinels for the primary
        return self._connection

    async def aclose(self) -> None:
        """Close the connection. The next batch opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

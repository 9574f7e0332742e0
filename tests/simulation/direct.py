"""The Redis of the simulation without a simulation: commands are carried out at once, at the time of day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from keepline.ops.redis.client import Client
from tests.simulation.redis_client import Command, Inbox, as_client
from tests.simulation.server import Server


class DirectServer:
    """A server whose clients reach it without a way between."""

    def __init__(self) -> None:
        self._inboxes: list[tuple[bytes, Inbox]] = []
        self._server = Server(time.time, self._publish)

    def connect(self) -> Client:
        return as_client(self)

    def _publish(self, channel: bytes, data: bytes) -> int:
        hearing = [inbox for heard, inbox in self._inboxes if heard == channel]
        for inbox in hearing:
            inbox.put([b"message", channel, data])
        return len(hearing)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        await asyncio.sleep(0)  # others may be quicker
        return [self._answer(command) for command in commands]

    def _answer(self, command: Command) -> Any:
        try:
            return self._server.execute(command)
        except ResponseError as error:
            return error

    async def publish_in_order(self, commands: Sequence[Command]) -> None:
        await self.exchange(commands)

    async def subscribe(self, inbox: Inbox, channel: bytes) -> None:
        self._inboxes.append((channel, inbox))
        inbox.put([b"subscribe", channel, 1])

    def unsubscribe(self, inbox: Inbox) -> None:
        self._inboxes = [
            (channel, listening) for channel, listening in self._inboxes if listening is not inbox
        ]

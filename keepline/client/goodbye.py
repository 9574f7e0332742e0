"""A node's goodbye: when to leave it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Goodbye:
    """The goodbye of one connection, received or not."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.is_due = False
        self._sleep = sleep
        self._received: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def received(self, seconds: float) -> None:
        """The node asks the client to leave after this many seconds. Only the first goodbye counts."""
        if not self._received.done():
            self._received.set_result(seconds)

    async def due(self) -> None:
        """Wait for a goodbye, and until its time."""
        await self._sleep(await self._received)
        self.is_due = True

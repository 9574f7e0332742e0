"""The clock of the server that has a key, for what is to be done there by a certain time or not at all.

It is asked just before, so clocks of machines need not agree.
"""

from __future__ import annotations

import asyncio

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import Script


class ServerTime:
    """The clocks of the servers of one Redis."""

    def __init__(self, client: Client) -> None:
        self._time_of = Script(client, __package__, "time_of.lua")

    async def not_after(self, key: str, until: float) -> int:
        """`until`, a time of the loop, in ms of the server's clock, rather too early. Raises StoreUnavailable."""
        seconds, microseconds = await self._time_of.run([key], [])
        left = until - asyncio.get_running_loop().time()
        return int(seconds) * 1_000 + int(microseconds) // 1_000 + int(left * 1_000)

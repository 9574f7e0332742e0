"""When Python looks for garbage in cycles, so that nobody waits for it.

The automatic full collection looks at all objects there are: of 6,000 clients for 150 ms, in which no signal moves. It
comes when the objects have grown by a quarter, which is just when thousands of clients come in. Yet hardly anything
here is a cycle, and counting references frees all the rest at once; a test holds connections to that.

So a few times a second what has survived is put out of the collector's sight (`gc.freeze`), which takes a microsecond
whatever there is. Then a full collection looks at what has come since. Once in an hour it looks at everything, for the
few cycles that were frozen while they were in use.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable

FREEZE_SECONDS = 0.2
FULL_SECONDS = 3_600.0
JITTER = 0.25
"""Of the hour: nodes that were started together do not stand still together."""


class Garbage:
    """`run` is to be run as a task."""

    def __init__(self, now: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Take the time in seconds, monotonic."""
        self._uniform = uniform
        self._full_at = now + self._hour()

    async def run(self) -> None:
        """Keep collections short, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.tick(loop.time())
            await asyncio.sleep(FREEZE_SECONDS)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        if now >= self._full_at:
            self._full_at = now + self._hour()
            gc.unfreeze()
            gc.collect()
        gc.freeze()

    def _hour(self) -> float:
        return FULL_SECONDS * self._uniform(1 - JITTER, 1 + JITTER)

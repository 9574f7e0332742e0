"""Schedules garbage collection so that no client waits for it.

An automatic full collection visits every object. With 6,000 clients that takes 150 ms, during which no signal moves. It
starts when the number of objects has grown by a quarter: exactly when thousands of clients log in. Yet there are hardly
any reference cycles here, and reference counting frees everything else at once. A test ensures that for connections.

So a few times a second, `gc.freeze` hides the surviving objects from the collector, which takes a microsecond for any
number of them. A full collection then visits only newer objects. Once an hour it visits everything, to free the few
cycles that were frozen while in use.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable

FREEZE_SECONDS = 0.2
FULL_SECONDS = 3_600.0
JITTER = 0.25
"""Random fraction of the hour, so that nodes that started together do not pause together."""


class Garbage:
    """Freezes objects and collects garbage on schedule. Run `run` as a task."""

    def __init__(self, now: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """`now` is the time in seconds, monotonic."""
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

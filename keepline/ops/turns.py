"""Turns: received data is processed a slice at a time, one connection after the other.

Between two rounds the event loop checks all sockets, so a connection that has sent little waits for one round at most,
however much others have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

ROUND_SECONDS = 0.001
"""Time after which the event loop checks its sockets, even if not every connection has had its turn."""


class Reader(Protocol):
    """A connection with data left to process."""

    def go_on(self) -> None:
        """Process a slice, and ask for another turn if data is left."""


class Turns:
    """A first-come, first-served queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Reader] = deque()
        self._planned = False
        self.pauses = 0  # of connections over their budget, which ask later

    def ask(self, reader: Reader) -> None:
        """Let `reader` continue when its turn comes."""
        self._waiting.append(reader)
        self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        self._planned = False
        until = time.perf_counter() + ROUND_SECONDS
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft().go_on()
                if time.perf_counter() > until:
                    break
        finally:
            if self._waiting:
                self._plan()

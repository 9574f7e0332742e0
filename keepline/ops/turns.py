"""Turns: what connections have sent is read a slice at a time, one connection after the other.

Between two rounds the loop looks at all sockets, so a connection that has sent little waits for one round at most,
however much others have sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

ROUND_SECONDS = 0.001
"""After so long the loop looks at its sockets, also when not everybody has had a turn."""


class Reader(Protocol):
    """Whoever has a rest to be read."""

    def go_on(self) -> None:
        """Read a slice; ask for another turn if that was not all."""


class Turns:
    """First come, first served."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Reader] = deque()
        self._planned = False
        self.pauses = 0  # of connections that were over their budget, which ask later

    def ask(self, reader: Reader) -> None:
        """Let `reader` go on when its turn comes."""
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

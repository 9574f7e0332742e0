"""When a node has stalled, so that nobody pays for it.

After a stall all that clients have sent meanwhile is read at one moment. It was sent at another, at a rate that may
have been right. So whoever is read just after a stall is credited with its length.
"""

from __future__ import annotations

import asyncio

LOOK_SECONDS = 0.1
STALL_SECONDS = 0.2
"""From how much lateness of the loop on it is a stall: bursts cover what is less."""

CREDIT_SECONDS = 1.0
"""For how long after a stall connections that are read for the first time are credited."""


class Stalls:
    """The last stall. `run` is to be run as a task."""

    __slots__ = ("credited_until", "number", "seconds", "total_seconds")

    def __init__(self) -> None:
        self.number = 0
        self.seconds = 0.0
        self.total_seconds = 0.0
        self.credited_until = 0.0

    def ended(self, seconds: float, now: float) -> None:
        """A stall of so many seconds is over at `now`."""
        self.number += 1
        self.seconds = seconds
        self.total_seconds += seconds
        self.credited_until = now + CREDIT_SECONDS

    async def run(self) -> None:
        """Look whether the loop is late, until cancelled. Loops run timers before they read sockets."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            if now - due > STALL_SECONDS:
                self.ended(now - due, now)

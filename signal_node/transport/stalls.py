"""Detects stalls of the node, so that clients do not pay for them.

After a stall, the node reads everything that clients have sent meanwhile at one moment. They may have sent it at an
acceptable rate. So connections that are read just after a stall are credited with its length.
"""

from __future__ import annotations

import asyncio

LOOK_SECONDS = 0.1
STALL_SECONDS = 0.2
"""Lateness of the event loop that counts as a stall. Bursts cover shorter delays."""

CREDIT_SECONDS = 1.0
"""How long after a stall a connection's first read is credited."""


class Stalls:
    """The last stall. Run `run` as a task."""

    __slots__ = ("credited_until", "number", "seconds", "total_seconds")

    def __init__(self) -> None:
        self.number = 0
        self.seconds = 0.0
        self.total_seconds = 0.0
        self.credited_until = 0.0

    def ended(self, seconds: float, now: float) -> None:
        """A stall of that many seconds ended at `now`."""
        self.number += 1
        self.seconds = seconds
        self.total_seconds += seconds
        self.credited_until = now + CREDIT_SECONDS

    async def run(self) -> None:
        """Check whether the event loop is late, until cancelled. The loop runs timers before it reads sockets."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            if now - due > STALL_SECONDS:
                self.ended(now - due, now)

"""Detects stalls of the node, so that clients do not pay for them.

After a stall, the node reads everything that clients have sent meanwhile at one moment. They may have sent it at an
acceptable rate. So connections that are read just after a stall are credited with its length.

After a stall, the event loop may read sockets before it runs timers. So both a timer and each read check for a stall.
"""

from __future__ import annotations

import asyncio
import math

LOOK_SECONDS = 0.1
STALL_SECONDS = 0.2
"""Lateness of the event loop that counts as a stall. Bursts cover shorter delays."""

CREDIT_SECONDS = 1.0
"""How long after a stall a connection's first read is credited."""


class Stalls:
    """The last stall. Run `run` as a task."""

    __slots__ = ("credited_until", "late_at", "number", "seconds", "total_seconds")

    def __init__(self) -> None:
        self.number = 0
        self.seconds = 0.0
        self.total_seconds = 0.0
        self.credited_until = 0.0
        self.late_at = math.inf  # a check after this time finds a stall

    def check(self, now: float) -> None:
        """Note a stall if the last check is too long ago."""
        if now > self.late_at:
            self.ended(now - self.late_at + STALL_SECONDS, now)
        self.late_at = now + LOOK_SECONDS + STALL_SECONDS

    def ended(self, seconds: float, now: float) -> None:
        """A stall of that many seconds ended at `now`."""
        self.number += 1
        self.seconds = seconds
        self.total_seconds += seconds
        self.credited_until = now + CREDIT_SECONDS

    async def run(self) -> None:
        """Check whether the event loop is late, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self.check(loop.time())
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self.late_at = math.inf

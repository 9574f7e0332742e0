"""What one connection, and one address, may make a node do.

Work is counted where it arises, in milliseconds of the event loop: that is what everybody shares, and what a frame, a
byte or a question to Redis takes from the others. `COSTS` says how much each is taken for; they were measured once and
rounded up, and need to be right only to a factor of two.

A budget is a token bucket of such milliseconds. Who has spent it is not punished but slowed down: nothing more is read
from the connection until the budget is in credit again, and TCP makes the client wait. So a budget needs no queue, and
an honest client that is over it for once loses nothing. A connection's work also counts for its address, whose budget
is larger; what is over that slows down all its connections here, and nobody else.

Control frames and fragments are cheap to send and not to read, and no honest client sends many. They have a bucket of
their own beside the session's one for texts, and whoever goes beyond it is closed with 4429.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of the loop."""

    frame: float = 0.02
    kib_received: float = (
        0.04  # 64 KiB are relayed in 0.2 ms here, and packed, published and unpacked elsewhere
    )
    kib_answered: float = 0.01
    read: float = 0.5  # a hello, a join, a report: what has something read from Redis
    handshake: float = 0.4


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Allowances:
    """Milliseconds of work a second, and at once, of a connection and of all connections of an address."""

    connection: float = 10.0
    connection_burst: float = 100.0
    address: float = 200.0
    address_burst: float = 1_000.0


MAX_PAUSE_SECONDS = 5.0
"""However much work somebody has caused, they are read again after this time."""


class Budget:
    """`rate` milliseconds a second on average, `burst` at once. Time is an argument."""

    __slots__ = ("_at", "_burst", "_deepest", "_level", "_parent", "_rate")

    def __init__(self, rate: float, burst: float, parent: Budget | None = None) -> None:
        """Let what is spent here count for `parent` as well."""
        self._rate = rate
        self._burst = self._level = burst
        self._deepest = -rate * MAX_PAUSE_SECONDS
        self._at = 0.0
        self._parent = parent

    def spend(self, cost: float, now: float) -> float:
        """Take `cost` at `now` (seconds, monotonic); for how many seconds nothing more is to be taken."""
        level = self._level + (now - self._at) * self._rate
        self._at = now
        if level > self._burst:
            level = self._burst
        self._level = level = max(level - cost, self._deepest)
        wait = 0.0 if level >= 0.0 else -level / self._rate
        if self._parent is not None:
            wait = max(wait, self._parent.spend(cost, now))
        return wait

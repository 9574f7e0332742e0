"""A work budget: a token bucket of milliseconds of the event loop, which may be overdrawn.

The cost of work is often known only afterwards, so it is charged even if too little is left. Then no further work may
start until the budget has credit again.
"""

from __future__ import annotations

MAX_PAUSE_SECONDS = 5.0
"""Maximum time without reading, however much work was caused."""


class Budget:
    """`rate` milliseconds per second on average, `burst` at once. Time is an argument."""

    __slots__ = ("_at", "_burst", "_deepest", "_level", "_parent", "_rate")

    def __init__(self, rate: float, burst: float, parent: Budget | None = None) -> None:
        """Also charge `parent` for what is spent here."""
        self._rate = rate
        self._burst = self._level = burst
        self._deepest = -rate * MAX_PAUSE_SECONDS
        self._at = 0.0
        self._parent = parent

    def belongs_to(self, parent: Budget) -> None:
        """From now on, also charge `parent` for what is spent here."""
        self._parent = parent

    def spend(self, cost: float, now: float) -> float:
        """Charge `cost` at `now` (seconds, monotonic). Returns for how many seconds no further work may start."""
        level = self._level + (now - self._at) * self._rate
        self._at = now
        if level > self._burst:
            level = self._burst
        self._level = level = max(level - cost, self._deepest)
        wait = 0.0 if level >= 0.0 else -level / self._rate
        if self._parent is not None:
            wait = max(wait, self._parent.spend(cost, now))
        return wait

"""A budget of work: a token bucket of milliseconds of the event loop, which may be overdrawn.

Work is often known only when it is done, so it is taken whatever is left; then nothing more is to be begun until the
budget is in credit again.
"""

from __future__ import annotations

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

    def belongs_to(self, parent: Budget) -> None:
        """Let what is spent here from now on count for `parent` as well."""
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

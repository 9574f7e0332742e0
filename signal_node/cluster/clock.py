"""The clock for rooms: Redis' time, so that all nodes agree and a node's own wrong clock does no harm.

Between two readings of Redis' clock, the monotonic clock measures the time, so a step of this machine's wall clock has
no effect. Of the last few readings, the one with the fastest answer counts (Cristian's algorithm, 1989: the error is at
most half of the round trip).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SAMPLES = 8

STEP_SECONDS = 2.0
"""A deviation from the monotonic clock that neither drift nor a slow answer can cause between two readings."""


class Clock:
    """Redis' time in ms since 1970; this machine's until Redis has answered."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        """Take the sources of time, both in seconds."""
        self.monotonic = monotonic
        self._offset = wall() - monotonic()
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    def now(self) -> int:
        """Ms since 1970."""
        return int((self.monotonic() + self._offset) * 1_000)

    def seconds(self) -> float:
        """Seconds since 1970."""
        return self.monotonic() + self._offset

    def learn(self, redis_seconds: float, asked: float, answered: float) -> None:
        """Redis' time was `redis_seconds` since 1970 between `asked` and `answered`, in seconds of the
        monotonic clock.
        """
        self._samples.append((answered - asked, redis_seconds - (asked + answered) / 2))
        self._offset = min(self._samples)[1]

    def step_to(self, seconds: float, asked: float, answered: float) -> float:
        """The difference between a time read between `asked` and `answered` and this clock; 0 if it is not a jump."""
        if not self._samples:
            return 0.0
        off = seconds - (asked + answered) / 2 - self._offset
        return off if abs(off) > STEP_SECONDS + (answered - asked) / 2 else 0.0

    def forget(self) -> None:
        """Discard all readings."""
        self._samples.clear()

    @property
    def offset_seconds(self) -> float:
        """The offset to the monotonic clock, for metrics and tests."""
        return self._offset

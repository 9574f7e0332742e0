"""The time of day that rooms are decided by: Redis', so that all nodes agree and one whose own is off does no harm.

Between two looks at Redis the monotonic clock carries the time on, so a step of this machine's time of day is not
noticed at all. Of the last few looks the one with the quickest answer counts (Cristian's algorithm, 1989: the
error is at most half of the round trip).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SAMPLES = 8

STEP_SECONDS = 2.0
"""A difference from the monotonic clock that no drift, and no slow answer, makes between two looks."""


class Clock:
    """Ms since 1970, as Redis has it. Until it has been asked, as this machine has it."""

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
        """Redis said `redis_seconds` since 1970 between `asked` and `answered`, seconds of the monotonic clock."""
        self._samples.append((answered - asked, redis_seconds - (asked + answered) / 2))
        self._offset = min(self._samples)[1]

    def step_to(self, seconds: float, asked: float, answered: float) -> float:
        """By how much a time told between `asked` and `answered` is off this clock; 0 where that is no jump."""
        if not self._samples:
            return 0.0
        off = seconds - (asked + answered) / 2 - self._offset
        return off if abs(off) > STEP_SECONDS + (answered - asked) / 2 else 0.0

    def forget(self) -> None:
        """What was learnt until now is no longer true."""
        self._samples.clear()

    @property
    def offset_seconds(self) -> float:
        """What is added to the monotonic clock, for metrics and tests."""
        return self._offset

"""A token bucket. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_MISSED_SECONDS = 60.0


@dataclass(slots=True)
class Bucket:
    """Allows `rate` takes a second on average and `burst` at once."""

    rate: float
    burst: int
    _level: float = field(init=False)
    _filled_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._level = float(self.burst)

    @property
    def at(self) -> float:
        """When one was asked for last."""
        return self._filled_at

    def take(self, now: float) -> bool:
        """Take one at `now` (seconds of one monotonic clock); False when there is none."""
        level = self._level
        if now != self._filled_at:  # what came in one packet has come at one time
            if level < self.burst:
                level += (now - self._filled_at) * self.rate
                if level > self.burst:
                    level = self.burst
            self._filled_at = now
        if level < 1.0:
            self._level = level
            return False
        self._level = level - 1.0
        return True

    def missed(self, seconds: float) -> None:
        """Add what would have been taken while nobody looked: it may be more than the burst."""
        self._level += min(seconds, MAX_MISSED_SECONDS) * self.rate

    def wait_ms(self) -> int:
        """How long after the last take until the next will succeed, in ms."""
        return max(0, round((1.0 - self._level) / self.rate * 1_000))

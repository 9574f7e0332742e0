"""A token bucket. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_MISSED_SECONDS = 60.0


@dataclass(slots=True)
class Bucket:
    """Allows `rate` takes per second on average, and `burst` at once."""

    rate: float
    burst: int
    _level: float = field(init=False)
    _filled_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._level = float(self.burst)

    @property
    def at(self) -> float:
        """When a token was last requested."""
        return self._filled_at

    def take(self, now: float) -> bool:
        """Take one token at `now` (seconds of one monotonic clock); False if there is none."""
        level = self._level
        if now != self._filled_at:  # frames of one packet arrive at the same time
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
        """Add the tokens of a period in which nothing was read, which may exceed the burst."""
        self._level += min(seconds, MAX_MISSED_SECONDS) * self.rate

    def wait_ms(self) -> int:
        """Time until the next take will succeed, in ms after the last one."""
        return max(0, round((1.0 - self._level) / self.rate * 1_000))

"""When to send again what was not acknowledged. Pure."""

from __future__ import annotations

FIRST_MS = 1_000
MIN_MS = 500
MAX_MS = 8_000
MAX_DOUBLINGS = 10


class RetransmissionTimeout:
    """When to repeat: the round trip as it was measured (RFC 6298), doubled each time that nothing came."""

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._doublings = 0

    def measured(self, ms: float) -> None:
        """A signal that was sent once was acknowledged after so long."""
        if self._smoothed is None:
            self._smoothed, self._variation = ms, ms / 2
        else:
            self._variation += (abs(ms - self._smoothed) - self._variation) / 4
            self._smoothed += (ms - self._smoothed) / 8

    def progressed(self) -> None:
        """Something was acknowledged, or the way is another one."""
        self._doublings = 0

    def passed(self) -> None:
        """Nothing came in time."""
        self._doublings = min(self._doublings + 1, MAX_DOUBLINGS)

    @property
    def ms(self) -> float:
        """How long to wait."""
        base = (
            float(FIRST_MS) if self._smoothed is None else max(MIN_MS, self._smoothed + 4 * self._variation)
        )
        return min(float(MAX_MS), base * (1 << self._doublings))

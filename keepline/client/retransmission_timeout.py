"""How long to wait for an acknowledgement before retransmitting. Pure."""

from __future__ import annotations

FIRST_MS = 1_000
MIN_MS = 500
MAX_MS = 8_000
MAX_DOUBLINGS = 10


class RetransmissionTimeout:
    """Follows the measured round trip (RFC 6298), and doubles with each timeout."""

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._doublings = 0

    def measured(self, ms: float) -> None:
        """A signal was acknowledged after `ms`. Only for signals that were sent once: others are ambiguous."""
        if self._smoothed is None:
            self._smoothed, self._variation = ms, ms / 2
        else:
            self._variation += (abs(ms - self._smoothed) - self._variation) / 4
            self._smoothed += (ms - self._smoothed) / 8

    def progressed(self) -> None:
        """A signal was acknowledged, or the connection changed."""
        self._doublings = 0

    def passed(self) -> None:
        """The timeout has passed without an acknowledgement."""
        self._doublings = min(self._doublings + 1, MAX_DOUBLINGS)

    @property
    def ms(self) -> float:
        """The current timeout."""
        base = (
            float(FIRST_MS) if self._smoothed is None else max(MIN_MS, self._smoothed + 4 * self._variation)
        )
        return min(float(MAX_MS), base * (1 << self._doublings))

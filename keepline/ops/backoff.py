"""The delay before a retry."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Capped exponential backoff with full jitter: each delay is random between zero and a ceiling that doubles.

    Full jitter spreads callers that failed together. The cap bounds how late a recovery is noticed.
    """

    def __init__(
        self,
        base: float = 0.1,
        cap: float = 10.0,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`base` and `cap` are the first and the highest ceiling, in seconds. `uniform(low, high)` returns a random
        number.
        """
        if not 0 < base <= cap:
            raise ValueError(f"base must be above zero and not above cap, got {base} and {cap}")
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._ceiling = base

    def next(self) -> float:
        """Return the seconds to wait before the next try."""
        delay = self._uniform(0.0, self._ceiling)
        self._ceiling = min(self._cap, self._ceiling * 2)
        return delay

    def reset(self) -> None:
        """Reset after a success."""
        self._ceiling = self._base

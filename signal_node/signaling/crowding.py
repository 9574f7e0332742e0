"""Whether this node is still taking in a crowd: clients that were all lost at once, and come in one after the other.

Hellos that wait show it, and so do clients that were told to come back later: they are on their way, too. It is over
when nobody has had to wait for as long as a client that was turned away may stay away by itself. Pure: the time is an
argument, in seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Hashable

SLOW_SECONDS = 1.0
"""A hello that waits for longer is not answered at leisure."""

AWAY_SECONDS = 10.0
"""The longest that clients wait by themselves before they try again."""


class Crowding:
    """Hellos that wait on one node, by whatever names them."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, float] = {}
        self._until = float("-inf")

    @property
    def waiting(self) -> int:
        """How many hellos have no answer yet."""
        return len(self._waiting)

    def came(self, hello: Hashable, now: float) -> None:
        """A hello has come."""
        self._waiting[hello] = now

    def went(self, hello: Hashable, now: float) -> None:
        """It has been answered, or its client is gone."""
        came = self._waiting.pop(hello, now)
        if now - came > SLOW_SECONDS:
            self._until = max(self._until, now + AWAY_SECONDS)

    def turned_away(self, now: float, retry_after_seconds: float) -> None:
        """A client was told to come back later."""
        self._until = max(self._until, now + retry_after_seconds + AWAY_SECONDS)

    def crowded(self, now: float) -> bool:
        """Whether a crowd is still coming in."""
        oldest = next(iter(self._waiting.values()), now)  # they came in this order
        return now - oldest > SLOW_SECONDS or now < self._until

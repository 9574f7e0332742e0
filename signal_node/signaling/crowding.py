"""Whether this node is still letting in a crowd: clients that lost their connections together and log in one after the
other.

Hellos that wait show a crowd, and so do clients that were told to retry later, because they will return. The crowd has
passed once no client has had to wait for as long as a refused client may stay away by itself. Pure: the time is an
argument, in seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Hashable

SLOW_SECONDS = 1.0
"""A hello that waits longer than this shows a crowd."""

AWAY_SECONDS = 10.0
"""The longest time that clients wait by themselves before they retry."""


class Crowding:
    """The waiting hellos of one node, by any key."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, float] = {}
        self._until = float("-inf")

    @property
    def waiting(self) -> int:
        """Number of hellos without an answer."""
        return len(self._waiting)

    def came(self, hello: Hashable, now: float) -> None:
        """A hello has arrived."""
        self._waiting[hello] = now

    def went(self, hello: Hashable, now: float) -> None:
        """It has been answered, or its client is gone."""
        came = self._waiting.pop(hello, now)
        if now - came > SLOW_SECONDS:
            self._until = max(self._until, now + AWAY_SECONDS)

    def turned_away(self, now: float, retry_after_seconds: float) -> None:
        """A client was told to retry later."""
        self._until = max(self._until, now + retry_after_seconds + AWAY_SECONDS)

    def crowded(self, now: float) -> bool:
        """Whether a crowd is still logging in."""
        oldest = next(iter(self._waiting.values()), now)  # in order of arrival
        return now - oldest > SLOW_SECONDS or now < self._until

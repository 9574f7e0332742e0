"""Connections that have not said hello. Each costs memory, and nobody knows yet whose it is.

An address has its limit, but addresses can be many. Where there are too many strangers altogether, the one that has
been silent for longest goes: a client that wants to come in says hello in the round trip after the handshake.
"""

from __future__ import annotations

from typing import Protocol


class Stranger(Protocol):
    """What can be dropped."""

    def abort(self) -> None:
        """Drop the connection without a close frame."""


class Strangers:
    """At most `limit` of them, oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self._waiting: dict[Stranger, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def came(self, stranger: Stranger) -> None:
        """Somebody has connected; if there are too many now, the first one goes."""
        self._waiting[stranger] = None
        if len(self._waiting) > self.limit:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self.dropped += 1
            oldest.abort()

    def known(self, stranger: Stranger) -> None:
        """It has said hello, or is gone."""
        self._waiting.pop(stranger, None)

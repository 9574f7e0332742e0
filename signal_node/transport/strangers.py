"""Connections that have not sent `hello`. Each costs memory, and its user is still unknown.

There is a limit per address, but an attacker can have many addresses. So the total is limited too: above it, the oldest
stranger is dropped. A genuine client sends `hello` within a round trip of the handshake.
"""

from __future__ import annotations

from typing import Protocol


class Stranger(Protocol):
    """A connection that can be dropped."""

    def abort(self) -> None:
        """Drop the connection without a close frame."""


class Strangers:
    """At most `limit` strangers, oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self._waiting: dict[Stranger, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def came(self, stranger: Stranger) -> None:
        """A client has connected. If there are too many now, drop the oldest."""
        self._waiting[stranger] = None
        if len(self._waiting) > self.limit:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self.dropped += 1
            oldest.abort()

    def known(self, stranger: Stranger) -> None:
        """The client has sent `hello`, or is gone."""
        self._waiting.pop(stranger, None)

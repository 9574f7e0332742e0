"""Numbers outgoing signals and recognizes incoming ones: the place where delivery is made reliable.

A stream is one direction of one call in one client instance. Its sender counts 1, 2, 3 … and keeps what has
not been handed to a connection; its receiver drops what it has seen. What is handed to a connection counts as
delivered here, so signals arrive at most once, and in order.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from keepline.client.errors import SignalQueueFull

_STREAMS_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class NumberedSignal:
    """A signal with its place in its stream."""

    stream: str
    n: int
    data: Any


class Outgoing:
    """The sender's end of a stream: a bounded queue of numbered signals."""

    def __init__(self, limit: int, stream: str | None = None) -> None:
        """Take how many signals may wait. `stream` is drawn at random unless given."""
        self.stream = secrets.token_urlsafe(12) if stream is None else stream
        self._limit = limit
        self._last = 0
        self._waiting: deque[NumberedSignal] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, data: Any) -> None:
        """Number a signal and queue it. Raises SignalQueueFull at the limit, and then uses up no number."""
        if len(self._waiting) >= self._limit:
            raise SignalQueueFull(f"{self._limit} signals are waiting for the connection")
        self._last += 1
        self._waiting.append(NumberedSignal(self.stream, self._last, data))

    def head(self) -> NumberedSignal | None:
        """The next signal to be sent; it stays queued until `sent`."""
        return self._waiting[0] if self._waiting else None

    def sent(self, signal: NumberedSignal) -> None:
        """The signal was handed to a connection."""
        if self._waiting and self._waiting[0] is signal:
            self._waiting.popleft()


class Incoming:
    """The receiver's end: remembers how far it has read each of the peer's latest streams."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def accept(self, stream: str | None, n: int | None) -> bool:
        """Whether this signal is new. One without stream and number always is: it cannot be recognized."""
        if stream is None or n is None:
            return True
        if n <= self._last.get(stream, 0):
            return False
        self._last[stream] = n
        self._last.move_to_end(stream)
        if len(self._last) > _STREAMS_REMEMBERED:
            self._last.popitem(last=False)
        return True

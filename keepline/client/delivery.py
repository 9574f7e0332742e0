"""Numbers outgoing signals and recognizes incoming ones: the place where delivery is made reliable.

A stream is one direction of one call in one client instance. Its sender counts 1, 2, 3 … and keeps what has
not been handed to a connection; its receiver drops what it has seen. What is handed to a connection counts as
delivered here, so signals arrive at most once, and in order.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from typing import Any

from keepline.client.errors import SignalQueueFull
from keepline.client.frames import encode

_STREAMS_REMEMBERED = 16


class Outgoing:
    """The sender's end of a stream: a queue of numbered signals as they will be written, bounded in both measures."""

    def __init__(self, room_id: str, limit: int, max_bytes: int, stream: str | None = None) -> None:
        """Take how many signals, and how many bytes, may wait. `stream` is drawn at random unless given."""
        self.stream = secrets.token_urlsafe(12) if stream is None else stream
        self._room_id = room_id
        self._limit = limit
        self._max_bytes = max_bytes
        self._last = 0
        self._bytes = 0
        self._waiting: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def frame(self, data: Any) -> bytes:
        """The text of the next signal. Raises TypeError for what JSON does not know."""
        numbered = {"stream": self.stream, "n": self._last + 1, "data": data}
        return encode({"type": "signal", "room": self._room_id, **numbered})

    def add(self, text: bytes) -> None:
        """Queue what `frame` made. Raises SignalQueueFull at the limit, and then uses up no number."""
        if len(self._waiting) >= self._limit or self._bytes + len(text) > self._max_bytes:
            raise SignalQueueFull(f"{len(self._waiting)} signals of {self._bytes} bytes are waiting already")
        self._last += 1
        self._bytes += len(text)
        self._waiting.append(text)

    def head(self) -> bytes | None:
        """The next signal to be sent; it stays queued until `sent`."""
        return self._waiting[0] if self._waiting else None

    def sent(self, text: bytes) -> None:
        """The signal was handed to a connection."""
        if self._waiting and self._waiting[0] is text:
            self._bytes -= len(text)
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

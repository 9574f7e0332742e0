"""A call's signals that are not sent yet, and so have no number. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from keepline.client.errors import SignalQueueFull


@dataclass(slots=True)
class Ticket:
    """The outcome of one of the app's signals. `code` is None if the peer has it."""

    settled: bool = False
    code: str | None = None

    def settle(self, code: str | None) -> None:
        """Set the outcome."""
        self.settled, self.code = True, code


class Outbox:
    """A queue of unsent signals, limited in number and bytes."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._signals: deque[tuple[bytes, Ticket]] = deque()

    def __len__(self) -> int:
        return len(self._signals)

    def push(self, text: bytes, ticket: Ticket) -> None:
        """Append a signal. Raises SignalQueueFull."""
        if len(self) >= self._limit or self._bytes + len(text) > self._max_bytes:
            raise SignalQueueFull(f"{len(self)} signals of {self._bytes} bytes are waiting already")
        self._bytes += len(text)
        self._signals.append((text, ticket))

    def pop(self) -> tuple[bytes, Ticket]:
        """Remove and return the next signal."""
        text, ticket = self._signals.popleft()
        self._bytes -= len(text)
        return text, ticket

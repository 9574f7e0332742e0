"""The receiving end of a call's signals: order, duplicates and acknowledgements of the peer's stream. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

RECEIVE_WINDOW = 128
"""How far ahead a signal may be. Larger than the sender's window, which notes and browsers' negotiation bypass."""

ACK_DELAY_MS = 50
ACK_EVERY = 16

_INSTANCES_REMEMBERED = 8


class Incoming:
    """The receiving end: which signals have arrived, and which to acknowledge."""

    def __init__(self) -> None:
        self.instance: str | None = None
        self.stream: str | None = None
        self.duplicates = 0
        self._epoch = 0
        self._position = 0
        self._early: dict[int, Any] = {}
        self._unacked = 0
        self._ack_at = 0.0
        self._past: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._retired: set[str] = set()

    def hears(self, instance: str) -> bool:
        """Whether signals of `instance` are accepted. Not if another instance has replaced it."""
        return instance not in self._retired

    def follow(self, instance: str) -> None:
        """The peer is `instance` from now on. An instance that is known already continues where it was."""
        if self.instance is not None:
            self._past[self.instance] = self._epoch, self._position
            self._retired.add(self.instance)
            while len(self._past) > _INSTANCES_REMEMBERED:
                self._retired.discard(self._past.popitem(last=False)[0])
        self.instance = instance
        self._epoch, self._position = self._past.pop(instance, (0, 0))
        self._early.clear()
        self._unacked = 0

    def hear_retired(self) -> None:
        """The peer's side reconnected, possibly from an instance that was followed earlier."""
        self._retired.clear()

    def take(self, stream: str, epoch: int, n: int, data: Any, now: float) -> list[Any]:
        """Process a signal of a reliable stream, and return the signals that can be delivered now, in order."""
        if epoch < self._epoch:
            return []
        if epoch > self._epoch:
            self._epoch, self._position, self._unacked = epoch, 0, 0
            self._early.clear()
        self.stream = stream
        if not self._unacked:
            self._ack_at = now + ACK_DELAY_MS
        self._unacked += 1
        if n <= self._position or n in self._early:
            self.duplicates += 1
            return []
        if n > self._position + RECEIVE_WINDOW:
            return []
        self._early[n] = data
        delivered = []
        while (following := self._position + 1) in self._early:
            delivered.append(self._early.pop(following))
            self._position = following
        return delivered

    def take_plain(self, stream: str, n: int) -> bool:
        """Process a signal of a plain stream, which is never retransmitted. Returns whether it is new."""
        self.stream = stream
        if n <= self._position:
            self.duplicates += 1
            return False
        self._position = n
        return True

    @property
    def ack_at(self) -> float | None:
        """When an acknowledgement is due; None if none is."""
        if not self._unacked or not self._position:
            return None
        return self._ack_at if self._unacked < ACK_EVERY else 0.0

    def take_ack(self) -> tuple[str | None, int]:
        """The acknowledgement: the stream, and the number up to which everything has arrived."""
        self._unacked = 0
        return self.stream, self._position

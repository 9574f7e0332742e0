"""When to read from a connection. One that sends a lot is read in slices, and one over its budget is read later."""

from __future__ import annotations

import asyncio

from keepline.ops.budget import Budget
from keepline.ops.turns import Reader, Turns

MAX_OWED = 1.0
"""Work is charged to the budget in steps of this many milliseconds, because charging costs a twentieth of a frame."""


class Reading:
    """Pauses and resumes the socket of `reader`, which gets a turn when it may continue."""

    __slots__ = ("_loop", "_paused", "_reader", "_transport", "_turns", "budget", "owed", "waits")

    def __init__(self, reader: Reader, budget: Budget, turns: Turns, loop: asyncio.AbstractEventLoop) -> None:
        self.budget = budget
        self.owed = 0.0  # work not yet charged to the budget
        self.waits = False  # a turn or a timer will continue reading
        self._reader: Reader | None = reader
        self._turns = turns
        self._loop = loop
        self._paused = False  # reading is paused
        self._transport: asyncio.Transport | None = None

    def connected(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        self._transport = transport

    def lost(self) -> None:
        """The client is gone. Drop the reader, to break the reference cycle."""
        self._transport = self._reader = None

    def spend(self, cost: float) -> None:
        """Charge work for the client. If its budget is exhausted, read later."""
        if wait := self.budget.spend(cost, self._loop.time()):
            self.rest(wait)

    def settle(self, now: float, *, behind: bool) -> None:
        """Charge the owed work. Read later if the budget is exhausted, or if whole frames are left (`behind`)."""
        owed, self.owed = self.owed, 0.0
        wait = self.budget.spend(owed, now)
        if wait or behind:
            self.rest(wait)

    def rest(self, wait: float) -> None:
        """Stop reading for `wait` seconds; if that is 0, until other connections have had their turn."""
        reader = self._reader
        if reader is None or self._transport is None or self._transport.is_closing():
            return
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if not self.waits:
            self.waits = True
            if wait:
                self._turns.pauses += 1
                self._loop.call_later(wait, self._turns.ask, reader)
            else:
                self._turns.ask(reader)

    def resume(self) -> None:
        """Resume reading, unless a turn or a timer is pending."""
        if self._transport is None or self.waits or not self._paused or self._transport.is_closing():
            return
        self._paused = False
        self._transport.resume_reading()

"""When one connection is read: who sends much is read a slice at a time, who is over its budget later."""

from __future__ import annotations

import asyncio

from keepline.ops.budget import Budget
from keepline.ops.turns import Reader, Turns

MAX_OWED = 1.0
"""Work is charged to the budget in steps of this many milliseconds, because charging costs a twentieth of a frame."""


class Reading:
    """Pauses and resumes the socket of `reader`, which has a turn when it may go on."""

    __slots__ = ("_loop", "_paused", "_reader", "_transport", "_turns", "budget", "owed", "waits")

    def __init__(self, reader: Reader, budget: Budget, turns: Turns, loop: asyncio.AbstractEventLoop) -> None:
        self.budget = budget
        self.owed = 0.0  # work that is not charged to the budget yet
        self.waits = False  # a turn or a timer will continue with the rest
        self._reader: Reader | None = reader
        self._turns = turns
        self._loop = loop
        self._paused = False  # reading is paused
        self._transport: asyncio.Transport | None = None

    def connected(self, transport: asyncio.Transport) -> None:
        """There is a client to read from."""
        self._transport = transport

    def lost(self) -> None:
        """There is none any more. The reader is forgotten: it refers to this, and would have to be collected."""
        self._transport = self._reader = None

    def spend(self, cost: float) -> None:
        """Charge work for the client. If its budget is exhausted, read later."""
        if wait := self.budget.spend(cost, self._loop.time()):
            self.rest(wait)

    def settle(self, now: float, *, behind: bool) -> None:
        """Let the budget know of what is owed; read later if it was too much, or when whole frames are left."""
        owed, self.owed = self.owed, 0.0
        wait = self.budget.spend(owed, now)
        if wait or behind:
            self.rest(wait)

    def rest(self, wait: float) -> None:
        """Read nothing until others have had their turn, or for so many seconds."""
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
        """Read what comes, unless there is still something to wait for."""
        if self._transport is None or self.waits or not self._paused or self._transport.is_closing():
            return
        self._paused = False
        self._transport.resume_reading()

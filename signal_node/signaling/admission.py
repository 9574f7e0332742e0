"""Lets clients in, in order and a bounded number at a time: hellos and joins.

What each of them does is its own affair (`Visit`); this says when, tells those who wait that they do, and sends those
away who cannot be served in time. A client that has gone leaves the line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from keepline.ops.metrics import Timings
from signal_node.signaling.admission_queue import AdmissionQueue, Line, Refusal
from signal_node.signaling.crowding import Crowding
from signal_node.signaling.work import Work
from signal_node.transport.connection import Connection

AT_ONCE = 32
"""Hellos and joins under way. Enough for Redis to answer several in one write; few, so that what a signal finds before
it in the loop is done soon.
"""

TICK_SECONDS = 0.02
TOLD = 32
"""Clients that are told something in one tick: thousands at once would hold up the loop."""

CROWDED = "many clients are coming in; try again"

_WAIT_BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Visit(Hashable, Protocol):
    """One hello, or one join."""

    @property
    def connection(self) -> Connection:
        """Whose it is."""

    @property
    def line(self) -> Line:
        """In which line it waits."""

    def serve(self) -> Coroutine[Any, Any, None]:
        """Answer it, whatever happens."""

    def refuse(self, message: str, retry_after_ms: int) -> None:
        """Tell the client to try again after that time."""

    def tell_queued(self, ahead: int, wait_ms: int) -> None:
        """Tell the client that it waits."""


@dataclass(slots=True)
class AdmissionCounts:
    """Visits that were sent away, handshakes as well, and how long the others have waited."""

    postponed: int = 0
    handshakes: int = 0
    waited: Timings = field(default_factory=lambda: Timings(_WAIT_BOUNDS))


class Admission:
    """Whose turn it is. `run` is to be run as a task."""

    def __init__(self, work: Work, patience: float, now: Callable[[], float]) -> None:
        """Take how many seconds a visit may wait, and the clock in seconds, monotonic."""
        self.counts = AdmissionCounts()
        self.crowding = Crowding()
        self.queue: AdmissionQueue[Visit] = AdmissionQueue(AT_ONCE, patience)
        self._now = now
        self._work = work
        self._waiting: dict[Connection, list[Visit]] = {}

    def ask(self, visit: Visit) -> None:
        """Serve a visit when it is its turn, or tell it at once when to come again."""
        now = self._now()
        self.crowding.came(visit, now)
        retry_after_ms = self.queue.add(visit, now, visit.line)
        if retry_after_ms is None:
            self._waiting.setdefault(visit.connection, []).append(visit)
            self._advance()
        else:
            self._refuse(visit, retry_after_ms, now)

    def crowd_waits(self) -> bool:
        """Whether somebody waits."""
        return len(self.queue) > 0

    def gone(self, connection: Connection) -> None:
        """A connection has closed: what it has asked for need not be answered."""
        for visit in self._waiting.pop(connection, ()):
            self.queue.remove(visit)
            self.crowding.went(visit, self._now())

    def turn_away(self) -> float | None:
        """In how many seconds somebody is to come again who has not shaken hands; None for: come in.

        Nobody is turned away while there is a place for one who comes back to a call: that it does shows in its hello.
        """
        if not self.queue.is_full(Line.RESUME):
            return None
        now = self._now()
        seconds = self.queue.refuse(now) / 1_000
        self.counts.handshakes += 1
        self.crowding.turned_away(now, seconds)
        return seconds

    async def run(self) -> None:
        """Tell those who wait that they do, and those who waited in vain to come again, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tell(self._now())

    def tell(self, now: float) -> None:
        """Tell those who wait what is to be told at `now`."""
        for told in self.queue.due(now, TOLD):
            if isinstance(told, Refusal):
                self._forget(told.key)
                self._refuse(told.key, told.retry_after_ms, now)
            else:
                told.key.tell_queued(told.ahead, told.wait_ms)

    def _advance(self) -> None:
        while (turn := self.queue.next(self._now())) is not None:
            visit, waited = turn
            self._forget(visit)
            self.counts.waited.observe(waited)
            self._work.begin(self._serve(visit))

    async def _serve(self, visit: Visit) -> None:
        try:
            await visit.serve()
        finally:
            now = self._now()
            self.crowding.went(visit, now)
            self.queue.done(now)
            self._advance()

    def _refuse(self, visit: Visit, retry_after_ms: int, now: float) -> None:
        self.counts.postponed += 1
        self.crowding.went(visit, now)
        self.crowding.turned_away(now, retry_after_ms / 1_000)
        visit.refuse(CROWDED, retry_after_ms)

    def _forget(self, visit: Visit) -> None:
        visits = self._waiting[visit.connection]
        visits.remove(visit)
        if not visits:
            del self._waiting[visit.connection]

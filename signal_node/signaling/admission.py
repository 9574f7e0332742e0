"""Admission control for hellos and joins: served in order, a limited number at a time.

A `Visit` does the work. This module decides when, notifies waiting clients, and refuses those that cannot be served in
time. A client that disconnects leaves the queue.
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
"""Maximum number of concurrent hellos and joins: enough for one write to Redis to carry several, and few enough that
signals do not wait long for the event loop.
"""

TICK_SECONDS = 0.02
TOLD = 32
"""Number of clients notified per tick: thousands at once would block the event loop."""

CROWDED = "many clients are logging in; retry later"

_WAIT_BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Visit(Hashable, Protocol):
    """One hello or join."""

    @property
    def connection(self) -> Connection:
        """The client's connection."""

    @property
    def line(self) -> Line:
        """Its class in the queue."""

    def serve(self) -> Coroutine[Any, Any, None]:
        """Do the work, and answer the client in any case."""

    def refuse(self, message: str, retry_after_ms: int) -> None:
        """Tell the client to retry after `retry_after_ms`."""

    def tell_queued(self, ahead: int, wait_ms: int) -> None:
        """Tell the client that it is in the queue."""


@dataclass(slots=True)
class AdmissionCounts:
    """Number of refused visits, including handshakes, and the waits of the others."""

    postponed: int = 0
    handshakes: int = 0
    waited: Timings = field(default_factory=lambda: Timings(_WAIT_BOUNDS))


class Admission:
    """The admission queue. Run `run` as a task."""

    def __init__(self, work: Work, patience: float, now: Callable[[], float]) -> None:
        """`patience` is how many seconds a visit may wait. `now()` is the time in seconds, monotonic."""
        self.counts = AdmissionCounts()
        self.crowding = Crowding()
        self.queue: AdmissionQueue[Visit] = AdmissionQueue(AT_ONCE, patience)
        self._now = now
        self._work = work
        self._waiting: dict[Connection, list[Visit]] = {}

    def ask(self, visit: Visit) -> None:
        """Serve a visit when its turn comes, or tell the client at once when to retry."""
        now = self._now()
        self.crowding.came(visit, now)
        retry_after_ms = self.queue.add(visit, now, visit.line)
        if retry_after_ms is None:
            self._waiting.setdefault(visit.connection, []).append(visit)
            self._advance()
        else:
            self._refuse(visit, retry_after_ms, now)

    def crowd_waits(self) -> bool:
        """Whether any visit is waiting."""
        return len(self.queue) > 0

    def gone(self, connection: Connection) -> None:
        """A connection has closed, so its visits need no answer."""
        for visit in self._waiting.pop(connection, ()):
            self.queue.remove(visit)
            self.crowding.went(visit, self._now())

    def turn_away(self) -> float | None:
        """The seconds after which a client should retry that has not done its handshake yet; None to accept it.

        Nobody is refused while there is room for clients that return to a call: only the hello tells who they are.
        """
        if not self.queue.is_full(Line.RESUME):
            return None
        now = self._now()
        seconds = self.queue.refuse(now) / 1_000
        self.counts.handshakes += 1
        self.crowding.turned_away(now, seconds)
        return seconds

    async def run(self) -> None:
        """Send waiting clients notices, and tell expired ones to retry, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tell(self._now())

    def tell(self, now: float) -> None:
        """Send the notices and refusals that are due at `now`."""
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

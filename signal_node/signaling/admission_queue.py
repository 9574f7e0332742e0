"""The queue of clients that log in, and their notices. No I/O; time is an argument, in seconds.

If thousands arrive at once, serving them all concurrently serves none: every login would finish at the very end, when
most clients have given up. So only some are served at a time, and the others wait: first the joins of clients that are
logged in, then clients that return to a call, then new clients, each class in order of arrival.

The expected wait follows from the service rate, measured while others wait. A faster rate is adopted at once. A slower
one is adopted gradually, and not while more clients arrive than are served: the event loop is then busy with their
handshakes and will speed up. A client that waited in vain shows the true rate. The estimate errs towards waiting: that
costs little, while a refusal costs a handshake and, at worst, seconds in which no client is served.

A client that cannot be served within `patience` is refused at once and told when to retry. Retry times are spaced at
the same rate, so that refused clients return in turn and not all at once. They are slightly early: a client that
returns early waits here, but one that returns late leaves the node idle.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

FIRST_NOTICE_SECONDS = 2.0
NOTICE_SECONDS = 4.0
"""Time until a waiting client's first notice, and the interval of further ones."""

OVERTIME = 0.25
"""Fraction of `patience`. A client that will be served this soon keeps waiting: a refusal would cost its place."""

EARLY = 0.75
"""Fraction of the time until a refused client's turn. Clients return later than told, by a quarter."""

MAX_WAITING = 20_000
MAX_RETRY_SECONDS = 120.0

FIRST_PACE = 0.001
"""Assumed seconds per client before the first measurement."""

WINDOW_SECONDS = 0.25
LEARNED = 0.125
"""Weight of a window that shows a slower rate."""

SLOWEST = 4.0
"""Limit on how much slower than the estimate a window counts: the event loop may have stalled."""

K = TypeVar("K", bound=Hashable)


class Line(IntEnum):
    """The classes of clients, in order of priority."""

    JOIN = 0
    RESUME = 1
    NEW = 2


@dataclass(frozen=True, slots=True)
class Notice(Generic[K]):
    """A notice to a waiting client: how many are served first, and for about how long it will wait."""

    key: K
    ahead: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Refusal(Generic[K]):
    """A client that waited in vain, and when it should retry."""

    key: K
    retry_after_ms: int


_Ticket = tuple[Line, int]
"""A class, and the position in it."""


@dataclass(slots=True)
class _Waiting:
    ticket: _Ticket
    since: float
    served_before: int


class Pace:
    """Seconds per client while others wait, over windows of time."""

    def __init__(self) -> None:
        self.seconds = FIRST_PACE
        self._began: float | None = None
        self._came = self._served = 0

    def came(self) -> None:
        """A client has arrived."""
        self._came += 1

    def served(self, now: float, *, others_wait: bool) -> None:
        """A client was served. If nobody waits, the time until the next one says nothing about the rate."""
        if self._began is None or not others_wait:
            self._begin(now if others_wait else None)
            return
        self._served += 1
        if now - self._began < WINDOW_SECONDS:
            return
        shown = min((now - self._began) / self._served, SLOWEST * self.seconds)
        if shown < self.seconds:
            self.seconds = shown
        elif self._came <= self._served:
            self.seconds += LEARNED * (shown - self.seconds)
        self._begin(now)

    def idle(self) -> None:
        """The queue is empty."""
        self._begin(None)

    def at_least(self, seconds: float) -> None:
        """Raise the estimate to what a client that waited in vain experienced."""
        self.seconds = max(self.seconds, seconds)

    def _begin(self, now: float | None) -> None:
        self._began, self._came, self._served = now, 0, 0


class AdmissionQueue(Generic[K]):
    """At most `at_once` clients in progress, and the waiting ones. Each client has a key."""

    def __init__(self, at_once: int, patience: float) -> None:
        self.under_way = 0
        self.pace = Pace()
        self._at_once = at_once
        self._patience = patience
        self._lines: tuple[OrderedDict[K, _Waiting], ...] = tuple(OrderedDict() for _ in Line)
        self._served = 0
        self._came = [0 for _ in Line]
        self._keys: dict[_Ticket, K] = {}
        self._to_tell: list[
            tuple[float, _Ticket]
        ] = []  # a heap; clients that have left stay in it until their notice is due
        self._retry_at = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def is_full(self, line: Line) -> bool:
        """Whether a new client of this class would be refused."""
        return not self._has_place(self._ahead(line))

    def add(self, key: K, now: float, line: Line) -> int | None:
        """Add a client, or return the ms after which it should retry if the wait would be too long."""
        self.pace.came()
        if self.is_full(line):
            return self.refuse(now)
        self._came[line] += 1
        ticket = line, self._came[line]
        self._keys[ticket] = key
        self._lines[line][key] = _Waiting(ticket, now, self._served)
        heapq.heappush(self._to_tell, (now + min(FIRST_NOTICE_SECONDS, self._patience), ticket))
        return None

    def next(self, now: float) -> tuple[K, float] | None:
        """The next client and how long it has waited. Call `done` afterwards.

        None if none waits, or if enough are in progress.
        """
        if self.under_way >= self._at_once:
            return None
        for line in self._lines:
            if line:
                key, waiting = line.popitem(last=False)
                del self._keys[waiting.ticket]
                self.under_way += 1
                return key, now - waiting.since
        return None

    def done(self, now: float) -> None:
        """A client in progress has been answered, or has left."""
        self.under_way -= 1
        self._served += 1
        self.pace.served(now, others_wait=any(self._lines))

    def remove(self, key: K) -> None:
        """The client has left. No effect if it was not waiting."""
        for line in self._lines:
            if (waiting := line.pop(key, None)) is not None:
                del self._keys[waiting.ticket]
        if not any(self._lines):
            self.pace.idle()

    def refuse(self, now: float) -> int:
        """Refuse a client: return the ms after which it should retry."""
        served_at = now + EARLY * (len(self) + self.under_way) * self.pace.seconds
        next_at = self._retry_at + EARLY * self.pace.seconds
        self._retry_at = min(max(next_at, served_at), now + MAX_RETRY_SECONDS)
        return round((self._retry_at - now) * 1_000)

    def due(self, now: float, at_most: int) -> Iterator[Notice[K] | Refusal[K]]:
        """The notices and refusals that are due, `at_most` so many. Refused clients are removed from the queue."""
        while self._to_tell and self._to_tell[0][0] <= now and at_most > 0:
            _, ticket = heapq.heappop(self._to_tell)
            key = self._keys.get(ticket)
            if key is None:
                continue
            at_most -= 1
            line = self._lines[ticket[0]]
            yield self._told(key, line[key], self._before(line, ticket), now)

    def _told(self, key: K, waiting: _Waiting, ahead: int, now: float) -> Notice[K] | Refusal[K]:
        """A notice, or a refusal for a client that has waited too long and is still far from its turn."""
        waited, wait = now - waiting.since, ahead * self.pace.seconds
        if waited >= self._patience:
            self.pace.at_least(waited / max(1, self._served - waiting.served_before))
            wait = ahead * self.pace.seconds
            if wait > OVERTIME * self._patience:
                self.remove(key)
                return Refusal(key, self.refuse(now))
        patience_ends, again = waiting.since + self._patience, now + NOTICE_SECONDS
        heapq.heappush(
            self._to_tell, (min(again, patience_ends) if now < patience_ends else again, waiting.ticket)
        )
        return Notice(key, ahead - self.under_way, round(wait * 1_000))

    def _before(self, line: OrderedDict[K, _Waiting], ticket: _Ticket) -> int:
        """About how many clients are served before this one. May include some of its class that have left."""
        first = next(iter(line.values())).ticket
        own = min(ticket[1] - first[1], len(line) - 1)
        return self.under_way + sum(map(len, self._lines[: ticket[0]])) + own

    def _ahead(self, line: Line) -> int:
        return self.under_way + sum(len(self._lines[before]) for before in range(line + 1))

    def _has_place(self, ahead: int) -> bool:
        if ahead < self._at_once:
            return True
        return len(self) < MAX_WAITING and ahead * self.pace.seconds <= self._patience

"""The queue of clients that log in, and what they are told while they wait. No I/O; time is an argument, in seconds.

If thousands arrive at once, serving all of them concurrently serves none: each would finish at the very end, when most
have given up. So only some are served at a time. The others wait: first the joins of clients that are logged in, then
clients that return to a call, then new clients, each in order of arrival.

The expected wait follows from the rate at which others were served while someone waited. A faster rate is adopted at
once, a slower one gradually, and not while more clients arrive than are served: then the event loop is busy with their
handshakes, and will be faster. A client that has waited in vain shows how slow it really is. Letting a client wait that
could have been refused costs little. A refusal costs a handshake and, at worst, seconds in which no client is served.

A client that cannot be served within `patience` is refused at once and told when to retry. These times are spaced at
the same rate, so that refused clients return when it is their turn and not all at once. They are slightly early,
because a client that returns early waits here, and one that returns late leaves the node idle.
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
"""How long a client waits before it is told so, and the interval of further notices."""

OVERTIME = 0.25
"""Fraction of `patience`: a client that will be served that soon keeps waiting, because a refusal would cost
its place.
"""

EARLY = 0.75
"""Fraction of the time until a refused client's turn. Clients return later than told, by a quarter."""

MAX_WAITING = 20_000
MAX_RETRY_SECONDS = 120.0

FIRST_PACE = 0.001
"""Seconds per client that are assumed before any was measured."""

WINDOW_SECONDS = 0.25
LEARNED = 0.125
"""Weight of a slower rate that a window shows."""

SLOWEST = 4.0
"""Maximum factor by which a window may show the rate to be slower: the event loop may have stalled."""

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
    """A client that has waited in vain is to be told when to retry."""

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
        """A client was served. If no other waits, the time until the next one has no meaning."""
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
        """No client waits any more."""
        self._begin(None)

    def at_least(self, seconds: float) -> None:
        """The rate as experienced by a client that has waited in vain."""
        self.seconds = max(self.seconds, seconds)

    def _begin(self, now: float | None) -> None:
        self._began, self._came, self._served = now, 0, 0


class AdmissionQueue(Generic[K]):
    """At most `at_once` clients in progress, and those that wait, by a key for each."""

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
        ] = []  # a heap, in which clients that have left stay until their time
        self._retry_at = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def is_full(self, line: Line) -> bool:
        """Whether a new client of this class would be refused."""
        return not self._has_place(self._ahead(line))

    def add(self, key: K, now: float, line: Line) -> int | None:
        """Let a client wait; or, if that would take too long, return the ms after which it should retry."""
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
        """A client is refused: return after how many ms it should retry."""
        served_at = now + EARLY * (len(self) + self.under_way) * self.pace.seconds
        next_at = self._retry_at + EARLY * self.pace.seconds
        self._retry_at = min(max(next_at, served_at), now + MAX_RETRY_SECONDS)
        return round((self._retry_at - now) * 1_000)

    def due(self, now: float, at_most: int) -> Iterator[Notice[K] | Refusal[K]]:
        """What to tell now, up to that many clients. Refused ones have been removed from the queue."""
        while self._to_tell and self._to_tell[0][0] <= now and at_most > 0:
            _, ticket = heapq.heappop(self._to_tell)
            key = self._keys.get(ticket)
            if key is None:
                continue
            at_most -= 1
            line = self._lines[ticket[0]]
            yield self._told(key, line[key], self._before(line, ticket), now)

    def _told(self, key: K, waiting: _Waiting, ahead: int, now: float) -> Notice[K] | Refusal[K]:
        """Refuse clients that will not be served soon even now, because it was slower than expected, or others
        arrived.
        """
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
        """About how many are served before a waiting client, including those of its class that arrived earlier and have
        left.
        """
        first = next(iter(line.values())).ticket
        own = min(ticket[1] - first[1], len(line) - 1)
        return self.under_way + sum(map(len, self._lines[: ticket[0]])) + own

    def _ahead(self, line: Line) -> int:
        return self.under_way + sum(len(self._lines[before]) for before in range(line + 1))

    def _has_place(self, ahead: int) -> bool:
        if ahead < self._at_once:
            return True
        return len(self) < MAX_WAITING and ahead * self.pace.seconds <= self._patience

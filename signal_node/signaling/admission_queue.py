"""Who waits to come in, and what those are told who wait. No I/O; time is an argument, in seconds.

When thousands come in at once, to serve all a little serves none: each would be let in at the very end, when most have
given up. So only some are under way; the others wait: joins of those who are in first, then clients on their way back
to a call, then those who are new, each in the order in which they came.

How long that takes follows from the pace at which others were served while somebody waited. A faster pace is believed
at once, a slower one by and by, and not while more come than are served: then the loop is busy with their handshakes,
and will be faster. Who has waited in vain shows how slow it really is. To let somebody wait who might have been refused
costs little; a refusal costs a handshake and, at worst, seconds in which nobody is served.

Who could not be served within `patience` is refused at once and told when to come again. Those times lie one behind the
other at the same pace, so that the refused come when it is their turn and not all at once; and they are a little early,
for who comes too early waits here, and who comes too late leaves the node idle.
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
"""How long a client waits before it is told that it does, and until it is told again."""

OVERTIME = 0.25
"""Of `patience`: who will be served that soon waits on, as a refusal would cost it its place."""

EARLY = 0.75
"""Of the time until it is the turn of somebody who is refused. Clients are later than they were told, by a quarter."""

MAX_WAITING = 20_000
MAX_RETRY_SECONDS = 120.0

FIRST_PACE = 0.001
"""Seconds for each that are assumed before any was measured."""

WINDOW_SECONDS = 0.25
LEARNED = 0.125
"""Of a slower pace that a window shows."""

SLOWEST = 4.0
"""How many times as slow as thought a window may show it to be: the loop may have stood still."""

K = TypeVar("K", bound=Hashable)


class Line(IntEnum):
    """Lines, the first one first."""

    JOIN = 0
    RESUME = 1
    NEW = 2


@dataclass(frozen=True, slots=True)
class Notice(Generic[K]):
    """What a client that waits is to be told: how many are before it, and for about how long it will wait."""

    key: K
    ahead: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Refusal(Generic[K]):
    """A client that has waited in vain is to be told when to try again."""

    key: K
    retry_after_ms: int


_Ticket = tuple[Line, int]
"""A line, and the how manieth came to it."""


@dataclass(slots=True)
class _Waiting:
    ticket: _Ticket
    since: float
    served_before: int


class Pace:
    """Seconds for each that is served while others wait, over windows of time."""

    def __init__(self) -> None:
        self.seconds = FIRST_PACE
        self._began: float | None = None
        self._came = self._served = 0

    def came(self) -> None:
        """Somebody has come."""
        self._came += 1

    def served(self, now: float, *, others_wait: bool) -> None:
        """Somebody was served; when nobody waits, the time until the next one says nothing."""
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
        """Nobody waits any more."""
        self._begin(None)

    def at_least(self, seconds: float) -> None:
        """So slow it was for somebody who has waited in vain."""
        self.seconds = max(self.seconds, seconds)

    def _begin(self, now: float | None) -> None:
        self._began, self._came, self._served = now, 0, 0


class AdmissionQueue(Generic[K]):
    """At most `at_once` under way, and those that wait, by a key for each."""

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
        ] = []  # a heap, in which those who are gone stay until it is time
        self._retry_at = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def is_full(self, line: Line) -> bool:
        """Whether somebody who comes to this line now would be refused."""
        return not self._has_place(self._ahead(line))

    def add(self, key: K, now: float, line: Line) -> int | None:
        """Let somebody wait; or, if that would take too long, the ms after which it makes sense to come again."""
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
        """Whose turn it is, and for how long it has waited; it has to be `done`.

        None when nobody waits, or enough are under way.
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
        """One that was under way is answered, or its client has gone."""
        self.under_way -= 1
        self._served += 1
        self.pace.served(now, others_wait=any(self._lines))

    def remove(self, key: K) -> None:
        """The client has gone. Of one that does not wait nothing is to be forgotten."""
        for line in self._lines:
            if (waiting := line.pop(key, None)) is not None:
                del self._keys[waiting.ticket]
        if not any(self._lines):
            self.pace.idle()

    def refuse(self, now: float) -> int:
        """Somebody is sent away: in how many ms to come again."""
        served_at = now + EARLY * (len(self) + self.under_way) * self.pace.seconds
        next_at = self._retry_at + EARLY * self.pace.seconds
        self._retry_at = min(max(next_at, served_at), now + MAX_RETRY_SECONDS)
        return round((self._retry_at - now) * 1_000)

    def due(self, now: float, at_most: int) -> Iterator[Notice[K] | Refusal[K]]:
        """What is to be told now, to so many. Those who are refused have been taken out."""
        while self._to_tell and self._to_tell[0][0] <= now and at_most > 0:
            _, ticket = heapq.heappop(self._to_tell)
            key = self._keys.get(ticket)
            if key is None:
                continue
            at_most -= 1
            line = self._lines[ticket[0]]
            yield self._told(key, line[key], self._before(line, ticket), now)

    def _told(self, key: K, waiting: _Waiting, ahead: int, now: float) -> Notice[K] | Refusal[K]:
        """Those are refused who will not be served soon even now: it was slower than it seemed, or others came."""
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
        """About how many are served before one that waits: of its line those who came first, gone ones among them."""
        first = next(iter(line.values())).ticket
        own = min(ticket[1] - first[1], len(line) - 1)
        return self.under_way + sum(map(len, self._lines[: ticket[0]])) + own

    def _ahead(self, line: Line) -> int:
        return self.under_way + sum(len(self._lines[before]) for before in range(line + 1))

    def _has_place(self, ahead: int) -> bool:
        if ahead < self._at_once:
            return True
        return len(self) < MAX_WAITING and ahead * self.pace.seconds <= self._patience

"""Hellos that wait for their turn, and what those are told who wait. No I/O; time is an argument, in seconds.

When thousands come in at once, to serve all a little serves none: each would be let in at the very end, when most have
given up. So only some hellos are under way; the others wait, clients on their way back to a call before those who are
new, each in the order in which they came.

How long that takes is estimated from the pace at which hellos were done while others waited. Who could not be served
within `patience` is refused at once, which costs next to nothing, and told when to say hello again. Those times lie
one behind the other at the same pace, so that the refused come when it is their turn and not all at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

FIRST_NOTICE_SECONDS = 2.0
NOTICE_SECONDS = 4.0
"""How long a client waits before it is told that it does, and until it is told again."""

MAX_WAITING = 20_000
MAX_RETRY_SECONDS = 120.0
FIRST_PACE = 0.002
"""Seconds for each hello that are assumed before any was measured."""

_REMEMBERED = 64
"""Hellos over which the pace is averaged, about."""

K = TypeVar("K", bound=Hashable)


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


@dataclass(slots=True)
class _Waiting:
    since: float
    told_at: float


class HelloQueue(Generic[K]):
    """At most `at_once` hellos under way, and those that wait, by a key for each."""

    def __init__(self, at_once: int, patience: float) -> None:
        self.under_way = 0
        self._at_once = at_once
        self._patience = patience
        self._coming_back: OrderedDict[K, _Waiting] = OrderedDict()
        self._new: OrderedDict[K, _Waiting] = OrderedDict()
        self._pace = FIRST_PACE
        self._done_at: float | None = None  # of the last one, if others have waited ever since
        self._retry_at = 0.0

    def __len__(self) -> int:
        return len(self._coming_back) + len(self._new)

    @property
    def is_full(self) -> bool:
        """Whether somebody new would be refused."""
        return not self._has_place(len(self) + self.under_way)

    def add(self, key: K, now: float, *, comes_back: bool) -> int | None:
        """Let a hello wait; or, if it would have to for too long, the ms after which it may be said again."""
        line = self._coming_back if comes_back else self._new
        ahead = self.under_way + (len(line) if comes_back else len(self))
        if not self._has_place(ahead):
            return self._refuse(now)
        line[key] = _Waiting(now, now)
        return None

    def next(self, now: float) -> tuple[K, float] | None:
        """Whose turn it is, and for how long it has waited; it has to be `done`.

        None when nobody waits, or enough are under way.
        """
        if self.under_way >= self._at_once or not len(self):
            return None
        key, waiting = (self._coming_back or self._new).popitem(last=False)
        self.under_way += 1
        return key, now - waiting.since

    def done(self, now: float) -> None:
        """One that was under way is answered, or its client has gone."""
        self.under_way -= 1
        if self._done_at is not None:
            self._pace += (now - self._done_at - self._pace) / _REMEMBERED
        self._done_at = now if len(self) else None

    def remove(self, key: K) -> None:
        """The client has gone. Of one that does not wait nothing is to be forgotten."""
        self._coming_back.pop(key, None)
        self._new.pop(key, None)
        if not len(self):
            self._done_at = None

    def expired(self, now: float) -> list[Refusal[K]]:
        """Take out those who have waited for too long: the pace was slower than it seemed, or others went before."""
        since = now - self._patience
        late = [key for key, waiting in self._in_order() if waiting.since < since]
        for key in late:
            self.remove(key)
        return [Refusal(key, self._refuse(now)) for key in late]

    def notices(self, now: float) -> list[Notice[K]]:
        """Those who are to be told now that they wait."""
        notices = []
        for ahead, (key, waiting) in enumerate(self._in_order()):
            first = waiting.told_at == waiting.since
            if now - waiting.told_at >= (FIRST_NOTICE_SECONDS if first else NOTICE_SECONDS):
                waiting.told_at = now
                notices.append(Notice(key, ahead, round((ahead + self.under_way) * self._pace * 1_000)))
        return notices

    def _in_order(self) -> Iterator[tuple[K, _Waiting]]:
        return chain(self._coming_back.items(), self._new.items())

    def _has_place(self, ahead: int) -> bool:
        return ahead < self._at_once or (len(self) < MAX_WAITING and ahead * self._pace <= self._patience)

    def _refuse(self, now: float) -> int:
        served_at = now + (len(self) + self.under_way) * self._pace
        self._retry_at = min(max(self._retry_at + self._pace, served_at), now + MAX_RETRY_SECONDS)
        return round((self._retry_at - now) * 1_000)

"""One client of the crowd: comes, stays, and comes back as the SDKs do.

The manners are those of docs/protocol.md: capped full jitter from 250 ms on, a node's time to come back never
shortened, after a goodbye the next connection before the old one goes, and no coming back where the close says so.
"""

from __future__ import annotations

import asyncio
import random
from enum import Enum, auto
from typing import Any, Protocol

from keepline.client.close_codes import Close, ComeBack
from keepline.ops.backoff import Backoff
from tests.storm.connection import Connection, Failure, Patience, Seat

BACKOFF_SECONDS, BACKOFF_CAP_SECONDS = 0.25, 10.0
RETRY_AFTER_JITTER = 0.25
"""By how much of it at most a time to come back is exceeded."""


class Place(Enum):
    """Where a client is. `OVER`: its call has ended, or it may not come back."""

    OUTSIDE = auto()
    INSIDE = auto()
    OVER = auto()


class Surroundings(Protocol):
    """What a client needs of the crowd that it is part of."""

    patience: Patience
    chance: random.Random
    loop: asyncio.AbstractEventLoop

    def port(self) -> int | None:
        """The port that the load balancer chooses; None while there is nobody to connect to."""

    def moved(self, client: Client) -> None:
        """The client is in another place than before."""

    def note(self, what: str) -> None:
        """Count something."""


class Client:
    """A user who wants to hold one side of one room. `since` is when it came to its place, on the loop's clock."""

    __slots__ = ("_backoff", "_coming", "_crowd", "_holding", "_resume", "_timer", "place", "seat", "since")

    def __init__(self, seat: Seat, crowd: Surroundings) -> None:
        self.seat = seat
        self.place = Place.OUTSIDE
        self.since = crowd.loop.time()
        self._crowd = crowd
        self._backoff = Backoff(BACKOFF_SECONDS, BACKOFF_CAP_SECONDS, uniform=crowd.chance.uniform)
        self._resume: str | None = None
        self._holding: Connection | None = None
        self._coming: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    def come(self) -> None:
        """Connect now."""
        self._set_timer(None)
        port = self._crowd.port()
        if port is None:
            self._come_again(Failure("not connected"))
            return
        crowd = self._crowd
        self._coming = Connection(self, self.seat, self._resume, crowd.patience, crowd.loop)
        self._coming.open(port)

    def come_soon(self) -> None:
        """Connect as after a loss: in a random part of 250 ms."""
        self._set_timer(self._backoff.next())

    def cut(self) -> None:
        """Lose every connection without a word, as when a load balancer dies."""
        for connection in (self._holding, self._coming):
            if connection is not None:
                connection.cut()

    def leave(self) -> None:
        """Go for good."""
        self._move(Place.OVER)
        self._set_timer(None)
        for connection in (self._holding, self._coming):
            if connection is not None:
                connection.give_up()
        self._holding = self._coming = None

    # --- connection.Owner ---

    def welcomed(self, connection: Connection, frame: dict[str, Any]) -> None:
        """The hello was taken: this connection takes over."""
        self._resume = frame["resume"]
        self._backoff.reset()
        if self._holding is not None:
            self._holding.give_up()
        self._holding, self._coming = connection, None

    def inside(self, how: str) -> None:
        """The side is held."""
        self._crowd.note(how)
        self._move(Place.INSIDE)

    def over(self, why: str) -> None:
        """The call is over."""
        self._crowd.note(f"ended: {why}")
        self.leave()

    def told_goodbye(self, seconds: float) -> None:
        """Connect elsewhere in so many seconds, and keep what there is until then."""
        self._crowd.note("goodbye")
        self._set_timer(seconds)

    def failed(self, connection: Connection, failure: Failure) -> None:
        """A connection is gone: another one, unless that is under way."""
        if connection is self._holding:
            self._holding = None
            self._move(Place.OUTSIDE)
        elif connection is self._coming:
            self._coming = None
        if self._coming is None and self._timer is None:
            self._come_again(failure)

    def _come_again(self, failure: Failure) -> None:
        self._crowd.note(failure.why)
        if Close(failure.close_code, "").come_back in (ComeBack.NEVER, ComeBack.FRESH_TOKEN):
            self.leave()
            return
        delay = self._backoff.next()
        if failure.retry_after is not None:
            delay = max(delay, failure.retry_after * (1 + RETRY_AFTER_JITTER * self._crowd.chance.random()))
        self._set_timer(delay)

    def _move(self, place: Place) -> None:
        if place is not self.place:
            self.place = place
            self._crowd.moved(self)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._crowd.loop.call_later(seconds, self.come)

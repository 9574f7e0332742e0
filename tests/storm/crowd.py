"""The crowd: thousands of clients in one process, and what becomes of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.helpers.waiting import eventually
from tests.storm.client import Client, Place
from tests.storm.connection import Patience, Seat

POLL_SECONDS = 0.05


@dataclass(slots=True)
class Wave:
    """What has happened since `began`. `waits`: the seconds that those who came in had been outside."""

    began: float
    last: float
    waits: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """From its beginning until the last one came in."""
        return self.last - self.began

    def quantile(self, share: float) -> float:
        """The wait that this share of those who came in did not exceed; 0 for nobody."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def counted(self, *beginnings: str) -> dict[str, int]:
        """What was counted under names with one of these beginnings, most often first."""
        return {what: n for what, n in self.counts.most_common() if what.startswith(beginnings)}


class Crowd:
    """Clients behind a load balancer that knows at once who lives: `ports`, which a scenario changes."""

    def __init__(self, seats: Sequence[Seat], ports: Sequence[int], seed: int, patience: Patience) -> None:
        self.loop = asyncio.get_running_loop()
        self.chance = random.Random(seed)
        self.patience = patience
        self.ports = list(ports)
        self.clients = [Client(seat, self) for seat in seats]
        self.begin_wave()
        self._in_line: list[Client] = []
        self._turns = itertools.count()

    def begin_wave(self) -> Wave:
        """Count anew from now on."""
        now = self.loop.time()
        self.wave = Wave(now, now)
        return self.wave

    def enter(self, at_once: int) -> None:
        """Let all come, never more than so many at a time."""
        self._in_line = self.clients[::-1]
        for _ in range(min(at_once, len(self.clients))):
            self._next_in_line()

    def storm_in(self) -> None:
        """Let all come at once."""
        for client in self.clients:
            client.since = self.loop.time()
            client.come_soon()

    def cut(self) -> None:
        """Break all connections in this moment."""
        for client in self.clients:
            client.cut()

    def leave(self) -> None:
        """Let all go for good."""
        for client in self.clients:
            client.leave()

    def count(self, place: Place) -> int:
        """How many are there."""
        return sum(client.place is place for client in self.clients)

    async def settled(self, seconds: float) -> None:
        """Wait until nobody is outside, or that time is up: look at `count` for which it was."""
        give_up_at = self.loop.time() + seconds
        while self.count(Place.OUTSIDE) and self.loop.time() < give_up_at:
            await asyncio.sleep(POLL_SECONDS)

    async def all_lost(self, seconds: float) -> None:
        """Wait until everybody has lost a connection in this wave; some may be back by then."""
        began = self.wave.began
        await eventually(
            lambda: all(client.since >= began for client in self.clients),
            timeout=seconds,
            what="all are lost",
        )

    # --- client.Surroundings ---

    def port(self) -> int | None:
        """The next node in turn."""
        return self.ports[next(self._turns) % len(self.ports)] if self.ports else None

    def moved(self, client: Client) -> None:
        """Note when clients come in and how long they were outside."""
        now = self.loop.time()
        if client.place is Place.INSIDE:
            self.wave.waits.append(now - client.since)
            self.wave.last = now
            if self._in_line:
                self._next_in_line()
        client.since = now

    def _next_in_line(self) -> None:
        client = self._in_line.pop()
        client.since = self.loop.time()
        client.come()

    def note(self, what: str) -> None:
        """Count it."""
        self.wave.counts[what] += 1

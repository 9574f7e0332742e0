"""Two sides over a channel that loses, doubles, reorders and breaks: everything arrives once, and in order."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
import pytest

from keepline.client.delivery import WINDOW, Delivery, PeerKind
from keepline.client.incoming import ACK_DELAY_MS
from keepline.client.outbox import Ticket

ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"
SEEDS = range(1, 61)
LAST_FAULT_MS = 20_000
GIVE_UP_MS = 120_000
QUIET_MS = 10_000


@dataclass
class Side:
    """One SDK, and what its app sent and got."""

    delivery: Delivery
    sent: list[Ticket] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    written: int = 0
    acknowledged_at: list[float] = field(default_factory=list)


class Channel:
    """The cluster and the network between two sides, on a clock of its own."""

    def __init__(self, seed: int, *, loss: float, doubling: float, reordering: float) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.sides = [Side(Delivery(ROOM, name, 10_000, 10**9)) for name in ("a", "b")]
        self._rates = loss, doubling, reordering
        self._queue: list[tuple[float, int, Any]] = []
        self._count = itertools.count()
        self._arrives = [0.0, 0.0]

    def at(self, ms: float, work: Any) -> None:
        heapq.heappush(self._queue, (ms, next(self._count), work))

    def flow(self) -> None:
        for number, side in enumerate(self.sides):
            side.delivery.flow(self.now)
            self._pump(number)

    def cut(self, ms: float) -> None:
        """A connection dies with what is on its way; both know, and meet again."""
        for side in self.sides:
            side.delivery.pause()
        self._queue = [entry for entry in self._queue if not isinstance(entry[2], tuple)]
        heapq.heapify(self._queue)
        self.at(self.now + ms, self.flow)

    def send(self, number: int) -> None:
        """Send the next of 1, 2, 3 …"""
        side, ticket = self.sides[number], Ticket()
        side.sent.append(ticket)
        side.delivery.push(orjson.dumps(len(side.sent)), ticket)
        self._pump(number)

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, work = heapq.heappop(self._queue)
            if isinstance(work, tuple):
                self._arrive(*work)
            else:
                work()
        self.now = until

    def _arrive(self, number: int, text: bytes) -> None:
        side, frame = self.sides[number], orjson.loads(text)
        if frame["type"] == "ack":
            side.delivery.acknowledged(frame["stream"], frame["n"], self.now)
        else:
            received = side.delivery.receive(frame["stream"], frame["n"], frame["data"], self.now)
            side.got += received.data
        self._pump(number)

    def _pump(self, number: int) -> None:
        side = self.sides[number]
        while (text := side.delivery.next(self.now)) is not None:
            side.written += 1
            if b'"ack"' in text:
                side.acknowledged_at.append(self.now)
            self._transmit(1 - number, text)
        if (wake_at := side.delivery.wake_at()) is not None:
            self.at(max(wake_at, self.now), lambda: self._pump(number) if self._is_due(number) else None)

    def _is_due(self, number: int) -> bool:
        return self.sides[number].delivery.due(self.now)

    def _transmit(self, to: int, text: bytes) -> None:
        loss, doubling, reordering = self._rates if self.now < LAST_FAULT_MS else (0.0, 0.0, 0.0)
        copies = 0 if self.random.random() < loss else 1 + (self.random.random() < doubling)
        for _ in range(copies):
            at = self.now + self.random.uniform(1, 40)
            if self.random.random() >= reordering:
                at = self._arrives[to] = max(at, self._arrives[to])
            self.at(at, (to, text))


def play(seed: int, *, cuts: int = 6, loss: float, doubling: float, reordering: float) -> Channel:
    channel = Channel(seed, loss=loss, doubling=doubling, reordering=reordering)
    channel.flow()
    for _ in range(channel.random.randrange(50, 400)):
        number = channel.random.randrange(2)
        channel.at(channel.random.uniform(0, LAST_FAULT_MS), lambda number=number: channel.send(number))
    for _ in range(cuts):
        ms = channel.random.uniform(0, 3_000)
        channel.at(channel.random.uniform(0, LAST_FAULT_MS), lambda ms=ms: channel.cut(ms))
    channel.at(LAST_FAULT_MS + 3_500, channel.flow)
    channel.run(GIVE_UP_MS)
    return channel


def problems(channel: Channel) -> list[str]:
    """What is wrong in the end."""
    found = []
    for side, peer in (channel.sides, channel.sides[::-1]):
        if peer.got != list(range(1, len(side.sent) + 1)):
            found.append(f"of {len(side.sent)} signals there came {peer.got}")
        if unsettled := [ticket for ticket in side.sent if not ticket.settled or ticket.code is not None]:
            found.append(f"{len(unsettled)} were not said to have arrived")
        if side.delivery.kind is not PeerKind.RELIABLE or len(side.delivery):
            found.append(f"the peer is {side.delivery.kind}, {len(side.delivery)} signals are left")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_arrives_once_and_in_order(seed: int) -> None:
    random = Random(seed)
    loss, doubling, reordering = (random.choice((0.0, 0.05, 0.3)) for _ in range(3))
    channel = play(seed, loss=loss, doubling=doubling, reordering=reordering)
    assert problems(channel) == [], f"seed {seed}"


def test_without_faults_nothing_is_sent_twice_and_acknowledgements_are_rare() -> None:
    channel = play(7, cuts=0, loss=0.0, doubling=0.0, reordering=0.0)
    for side in channel.sides:
        assert side.delivery.counts.resent == side.delivery.incoming.duplicates == 0
        pairs = itertools.pairwise(side.acknowledged_at)
        assert min(later - earlier for earlier, later in pairs) >= ACK_DELAY_MS


def test_a_side_that_stops_listening_is_not_flooded() -> None:
    channel = Channel(3, loss=1.0, doubling=0.0, reordering=0.0)
    channel.sides[0].delivery.kind = PeerKind.RELIABLE
    channel.flow()
    for _ in range(1_000):
        channel.send(0)
    channel.run(QUIET_MS)
    # a window and the note at once, and one of them after 1, 3 and 7 seconds
    assert channel.sides[0].written <= WINDOW + 1 + 3

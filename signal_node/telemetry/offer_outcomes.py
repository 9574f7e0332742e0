"""Offers and their outcomes: how well calls connect, judged from the signals alone.

An offer is counted only by the node that received it from the client. Its answer returns through the same node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from keepline.ops.metrics import Timings
from keepline.room.record import Room, SideNumber
from signal_node.protocol.signal_kind import kind_of, room_of

MIN_BYTES = 400
"""Smaller frames cannot contain a session description, so candidates are skipped quickly."""

ANSWER_SECONDS = 15.0
"""Time without an answer after which a negotiation counts as failed."""

MAX_OPEN = 10_000

_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, ANSWER_SECONDS)


@dataclass(slots=True)
class OfferCounts:
    """Outcomes of offers, and the time until their answers."""

    answered: int = 0
    unanswered: int = 0
    superseded: int = 0
    interrupted: int = 0
    seconds: Timings = field(default_factory=lambda: Timings(_BOUNDS))


class OfferOutcomes:
    """The offers that were received on this node and wait for an answer."""

    def __init__(self, room: Callable[[str], Room | None], monotonic: Callable[[], float]) -> None:
        """`room(room_id)` is the cached room. The clock is in seconds."""
        self.counts = OfferCounts()
        self._room = room
        self._monotonic = monotonic
        self._open: OrderedDict[str, tuple[SideNumber, float]] = OrderedDict()

    def sent(self, room_id: str, side: SideNumber, kind: str) -> None:
        """A client of this node has sent its peer a frame of this kind (see `signal_kind.kind_of`)."""
        if kind == "offer":
            self._offered(room_id, side)
        elif kind == "answer" and self._open.get(room_id, (side, 0.0))[0] != side:
            self._answered(room_id)

    def received(self, data: bytes) -> None:
        """A frame of a client of another node has arrived. That node counts its offers."""
        if kind_of(data) == "answer":
            self._answered(room_of(data))

    def _offered(self, room_id: str, side: SideNumber) -> None:
        if self._open.pop(room_id, None) is not None:
            self.counts.superseded += 1
        self.give_up()
        if len(self._open) >= MAX_OPEN:
            self._open.popitem(last=False)
        self._open[room_id] = side, self._monotonic()

    def _answered(self, room_id: str) -> None:
        offered = self._open.pop(room_id, None)
        if offered is not None:
            self.counts.answered += 1
            self.counts.seconds.observe(self._monotonic() - offered[1])

    def give_up(self) -> None:
        """Count offers that have waited too long: as interrupted if a side of the room is no longer present."""
        since = self._monotonic() - ANSWER_SECONDS
        while self._open:
            room_id, (_, at) = next(iter(self._open.items()))
            if at > since:
                return
            del self._open[room_id]
            room = self._room(room_id)
            if room is not None and room.side_1.connected and room.side_2.connected:
                self.counts.unanswered += 1
            else:
                self.counts.interrupted += 1

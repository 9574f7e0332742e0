"""What happened lately in each room's negotiation, as this node saw it: for `keepline trace`, and for a drain that lets
a negotiation finish first. Kept in memory alone, by kind and time; never a word of a description or of the chat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from keepline.room.record import SideNumber

MAX_ROOMS = 4_096
"""Rooms that are remembered; those that were met first give way."""

MAX_MOMENTS = 48
"""Moments of one room that are remembered."""

HEAD_BYTES = 320
"""How far into a frame to look for what it is: past the longest envelope and the name of the peer's stream."""

CANDIDATE = "candidate"


@dataclass(slots=True)
class Moment:
    """Something that one side did. Times are seconds of the loop's clock.

    Candidates come in bursts: `count` of them between `at` and `until` are one moment.
    """

    at: float
    until: float
    side: SideNumber
    session: str
    what: str
    count: int = 1


def kind_of(data: bytes) -> str | None:
    """What a frame from peer to peer does in a negotiation; None for nothing. A glance at its head, no parsing."""
    if data.find(b'"description":', 0, HEAD_BYTES) >= 0:
        if data.find(b'"offer"', 0, HEAD_BYTES) >= 0:
            return "offer"
        return "answer" if data.find(b'"answer"', 0, HEAD_BYTES) >= 0 else "description"
    return CANDIDATE if data.find(b'"candidate":', 0, HEAD_BYTES) >= 0 else None


class Moments:
    """The moments of each room, oldest first."""

    def __init__(self) -> None:
        self._rooms: dict[str, deque[Moment]] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def relayed(self, room_id: str, side: SideNumber, session: str, data: bytes, at: float) -> None:
        """A side sent a frame to its peer. Called for every signal, so it does as little as it can."""
        what = kind_of(data)
        if what is None:
            return
        if what is CANDIDATE and (moments := self._rooms.get(room_id)):
            last = moments[-1]
            if last.what is CANDIDATE and last.session == session:
                last.count += 1
                last.until = at
                return
        self.note(room_id, side, session, what, at)

    def note(self, room_id: str, side: SideNumber, session: str, what: str, at: float) -> None:
        """Remember that a side did something."""
        moments = self._rooms.get(room_id)
        if moments is None:
            if len(self._rooms) >= MAX_ROOMS:
                del self._rooms[next(iter(self._rooms))]
            moments = self._rooms[room_id] = deque(maxlen=MAX_MOMENTS)
        moments.append(Moment(at, at, side, session, what))

    def of(self, room_id: str) -> Iterator[Moment]:
        """The moments of a room."""
        return iter(self._rooms.get(room_id, ()))

    def negotiated_at(self, room_id: str) -> float | None:
        """When a description or a candidate of the room was last relayed here; None for never."""
        for moment in reversed(self._rooms.get(room_id, ())):
            if moment.what in ("offer", "answer", "description", CANDIDATE):
                return moment.until
        return None

"""Recent events of each room's negotiation, as this node saw them: for `keepline trace`, and for a drain that lets a
negotiation finish first. In memory only, by kind and time; never a session description or chat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keepline.room.record import SideNumber
from signal_node.protocol.signal_kind import CANDIDATE, kind_of

MAX_ROOMS = 4_096
"""Maximum number of remembered rooms. A new room replaces the oldest one, except for a mere candidate: with more active
rooms than this, every candidate would replace a room.
"""

MAX_MOMENTS = 48
"""Maximum number of remembered events per room."""


@dataclass(slots=True)
class Moment:
    """An event of one side. Times are seconds of the event loop's clock.

    Candidates come in bursts: `count` of them between `at` and `until` are one event.
    """

    at: float
    until: float
    side: SideNumber
    session: str
    what: str
    count: int = 1


class NegotiationLog:
    """The events of each room, oldest first."""

    def __init__(self) -> None:
        self._rooms: dict[str, list[Moment]] = {}
        self._last: dict[str, Moment] = {}  # event of each room, looked up for every candidate

    def __len__(self) -> int:
        return len(self._rooms)

    def relayed(self, room_id: str, side: SideNumber, session: str, data: bytes, at: float) -> str | None:
        """A side sent its peer a frame of that kind. Called for every signal, so it does as little as possible."""
        what = kind_of(data)
        if what is None:
            return None
        if what is CANDIDATE:
            last = self._last.get(room_id)
            if last is not None and last.what is CANDIDATE and last.session == session:
                last.count += 1
                last.until = at
                return what
            if last is None and len(self._rooms) >= MAX_ROOMS:
                return what
        self.note(room_id, side, session, what, at)
        return what

    def note(self, room_id: str, side: SideNumber, session: str, what: str, at: float) -> None:
        """Remember an event of a side."""
        moments = self._rooms.get(room_id)
        if moments is None:
            if len(self._rooms) >= MAX_ROOMS:
                first = next(iter(self._rooms))
                del self._rooms[first], self._last[first]
            moments = self._rooms[room_id] = []
        elif len(moments) >= MAX_MOMENTS:
            del moments[0]
        self._last[room_id] = moment = Moment(at, at, side, session, what)
        moments.append(moment)

    def of(self, room_id: str) -> Iterator[Moment]:
        """The events of a room."""
        return iter(self._rooms.get(room_id, ()))

    def negotiated_at(self, room_id: str) -> float | None:
        """When a description or candidate of the room was last relayed here; None for never."""
        for moment in reversed(self._rooms.get(room_id, ())):
            if moment.what in ("offer", "answer", "description", CANDIDATE):
                return moment.until
        return None

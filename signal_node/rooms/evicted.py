"""Rooms that have left the cache, kept for a while in case Redis loses its last writes.

A replica that takes over may be some seconds behind. If it lacks a room that has a client on some node, that node's
cache has the room. Only this module has other lacking changes: an end, the loss of both sides, a new room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from keepline.room.record import Message, Room

KEPT_MS = 60_000
"""How long rooms are kept: longer than a replica lags, plus the time until it serves."""

MAX_KEPT = 10_000
"""Maximum number of kept rooms; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Untold:
    """A change by a newer record: clients know `known`, and not what led to `there`."""

    known: Room
    there: Room


@dataclass(frozen=True, slots=True)
class Evicted:
    """The last record and the last chat messages stored from here, and what clients were not told."""

    room: Room
    lines: tuple[Message, ...]
    until: int
    untold: tuple[Untold, ...]
    told_version: int


class EvictedRooms:
    """The rooms that left recently, by id. Times are ms since 1970."""

    def __init__(self) -> None:
        self._rooms: dict[str, Evicted] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rooms))

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, room_id: str) -> Evicted | None:
        """What is known of the room, if it left recently."""
        return self._rooms.get(room_id)

    def keep(
        self, room: Room, lines: Iterable[Message], now: int, untold: Iterable[Untold], told_version: int
    ) -> None:
        """The room leaves the cache."""
        self.forget(room.room_id)
        self._rooms[room.room_id] = Evicted(room, tuple(lines), now + KEPT_MS, tuple(untold), told_version)
        while len(self._rooms) > MAX_KEPT or self._oldest().until <= now:
            del self._rooms[self._oldest().room.room_id]

    def told(self, room_id: str, untold: Untold) -> None:
        """The clients have been told."""
        evicted = self._rooms[room_id]
        left = tuple(each for each in evicted.untold if each is not untold)
        self._rooms[room_id] = replace(evicted, untold=left)

    def forget(self, room_id: str) -> None:
        """The room is in the cache again."""
        self._rooms.pop(room_id, None)

    def _oldest(self) -> Evicted:
        return next(iter(self._rooms.values()))

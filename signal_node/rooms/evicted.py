"""Rooms that have left the cache, kept for a while: a Redis that forgets its last writes is told of them again.

A replica that takes over may be some seconds behind. What it lacks of rooms with a client on some node is in that
node's cache; what it lacks of others (an end, the loss of both sides, a room just opened) is only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from keepline.room.record import Message, Room

KEPT_MS = 60_000
"""For how long: longer than a replica is behind, and than it takes until it serves."""

MAX_KEPT = 10_000
"""Rooms that are kept at the most; the oldest give way."""


@dataclass(frozen=True, slots=True)
class Untold:
    """What a newer record has brought: clients know `known`, and not what led to `there`."""

    known: Room
    there: Room


@dataclass(frozen=True, slots=True)
class Evicted:
    """The last record that was stored from here, the last lines of chat that were, and what clients were not told."""

    room: Room
    lines: tuple[Message, ...]
    until: int
    untold: tuple[Untold, ...]
    told_version: int


class EvictedRooms:
    """The rooms that left lately, by id. Times are ms since 1970."""

    def __init__(self) -> None:
        self._rooms: dict[str, Evicted] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rooms))

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, room_id: str) -> Evicted | None:
        """What is known of the room, if it left lately."""
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

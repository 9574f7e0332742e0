"""Rooms that the reconciler should compare, noted by whichever code sees that something was missed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Suspects:
    """Rooms with missed changes, or all rooms; and rooms whose chat Redis may have lost."""

    missed: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    everything: bool = False

    def __len__(self) -> int:
        return len(self.missed) + len(self.lost) + self.everything


class Suspicions:
    """The rooms to compare with Redis soon."""

    def __init__(self) -> None:
        self._suspects = Suspects()
        self._noted = asyncio.Event()

    def __len__(self) -> int:
        return len(self._suspects)

    def look_at(self, room_id: str) -> None:
        """A change of a room was missed."""
        self._suspects.missed.add(room_id)
        self._noted.set()

    def lost(self, room_id: str) -> None:
        """Redis has lost a room's data. A commit restores the record; the chat has to be written back."""
        self._suspects.lost.add(room_id)
        self._noted.set()

    def look_at_all(self) -> None:
        """Changes of any room may have been missed."""
        self._suspects.everything = True
        self._noted.set()

    async def noted(self) -> None:
        """Wait until there is something to compare."""
        await self._noted.wait()

    def take(self) -> Suspects:
        """Take all noted rooms, and clear the notes."""
        self._noted.clear()
        taken, self._suspects = self._suspects, Suspects()
        return taken

    def give_back(self, suspects: Suspects) -> None:
        """The comparison failed; note the rooms again."""
        self._suspects.missed |= suspects.missed
        self._suspects.lost |= suspects.lost
        self._suspects.everything |= suspects.everything
        self._noted.set()

"""What the reconciler is to compare: noted by those who see that something was missed, taken by the reconciler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Suspects:
    """Rooms of which something was missed, or all; and rooms whose chat Redis may have lost."""

    missed: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    everything: bool = False

    def __len__(self) -> int:
        return len(self.missed) + len(self.lost) + self.everything


class Suspicions:
    """The rooms that are to be compared with Redis soon."""

    def __init__(self) -> None:
        self._suspects = Suspects()
        self._noted = asyncio.Event()

    def __len__(self) -> int:
        return len(self._suspects)

    def look_at(self, room_id: str) -> None:
        """Something was missed of a room."""
        self._suspects.missed.add(room_id)
        self._noted.set()

    def lost(self, room_id: str) -> None:
        """Redis has lost something of a room, and gets the record by a commit: its chat is to be put back."""
        self._suspects.lost.add(room_id)
        self._noted.set()

    def look_at_all(self) -> None:
        """Something may have been missed of any room."""
        self._suspects.everything = True
        self._noted.set()

    async def noted(self) -> None:
        """Wait until there is something to compare."""
        await self._noted.wait()

    def take(self) -> Suspects:
        """All that was noted; it is no longer noted then."""
        self._noted.clear()
        taken, self._suspects = self._suspects, Suspects()
        return taken

    def give_back(self, suspects: Suspects) -> None:
        """They could not be compared now."""
        self._suspects.missed |= suspects.missed
        self._suspects.lost |= suspects.lost
        self._suspects.everything |= suspects.everything
        self._noted.set()

"""What a node knows of rooms: those of its cache, and for a minute those that have left it. Queries only."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from keepline.room.record import Message, Room
from signal_node.rooms.evicted import EvictedRooms, Untold
from signal_node.rooms.journal import KEPT_LINES, UNKNOWN_VERSION, CachedRoom, newest
from signal_node.rooms.store import RoomStore


class KnownRooms:
    """The rooms by id. `Rooms` changes them."""

    def __init__(self, store: RoomStore) -> None:
        self._store = store
        self._entries: dict[str, CachedRoom] = {}
        self._evicted = EvictedRooms()

    def __len__(self) -> int:
        """Number of cached rooms."""
        return len(self._entries)

    def get(self, room_id: str) -> Room | None:
        """The room in the cache."""
        entry = self._entries.get(room_id)
        return None if entry is None else entry.head

    async def find(self, room_id: str) -> Room | None:
        """The room from the cache, or from Redis. Raises StoreUnavailable, BadRecord."""
        cached = self.get(room_id)
        if cached is not None:
            return cached
        room, _ = await self._store.load(room_id)
        return self.get(room_id) or room

    def cached(self) -> list[str]:
        """The cached rooms."""
        return list(self._entries)

    def ids(self) -> list[str]:
        """The cached rooms, and those that left the cache in the last minute."""
        return [*self._entries, *self._evicted]

    def known(self, room_id: str) -> Room | None:
        """The room in the cache, or as it left the cache in the last minute."""
        return self.get(room_id) or self.stored(room_id)

    def stored(self, room_id: str) -> Room | None:
        """The last record that is known to be stored, also of a room that has just left the cache."""
        entry = self._entries.get(room_id)
        if entry is not None:
            return entry.stored
        evicted = self._evicted.get(room_id)
        return None if evicted is None else evicted.room

    def at_rest(self, room_id: str) -> Room | None:
        """The stored record of a cached room without pending changes."""
        entry = self._entries.get(room_id)
        return None if entry is None or entry.journal else entry.stored

    def lines(self, room_id: str) -> list[Message]:
        """The last chat messages that were stored from here."""
        known = self._entries.get(room_id) or self._evicted.get(room_id)
        return [] if known is None else list(known.lines)

    def untold(self, room_id: str) -> Sequence[Untold]:
        """Changes by conflicts that clients have not been told, oldest first."""
        known = self._entries.get(room_id) or self._evicted.get(room_id)
        return () if known is None else known.untold

    def take_untold(self, untold: Untold) -> bool:
        """Whether clients have not been told yet. The caller tells them now."""
        room_id = untold.there.room_id
        left = tuple(each for each in self.untold(room_id) if each is not untold)
        if len(left) == len(self.untold(room_id)):
            return False
        entry = self._entries.get(room_id)
        if entry is not None:
            entry.untold = left
        else:
            self._evicted.told(room_id, untold)
        return True

    def _entry_of(self, room_id: str, found: Room | None, *, from_redis: bool) -> CachedRoom:
        """The cached room, or a new entry for what was found, or for what is known of it if that is newer."""
        entry = self._entries.get(room_id)
        if entry is not None:
            return entry
        evicted = self._evicted.get(room_id)
        room = found if evicted is None else newest(found, evicted.room)
        version = 0 if room is None else room.version
        if room is found and not from_redis:
            version = UNKNOWN_VERSION
        entry = CachedRoom(room_id, room, room, version)
        if evicted is not None:
            entry.told_version, entry.untold = evicted.told_version, evicted.untold
            entry.lines = deque(evicted.lines, maxlen=KEPT_LINES)
        return entry

    def _leave(self, entry: CachedRoom, now: int) -> None:
        """The room leaves the cache."""
        del self._entries[entry.room_id]
        if entry.stored is not None:
            self._evicted.keep(entry.stored, entry.lines, now, entry.untold, entry.told_version)

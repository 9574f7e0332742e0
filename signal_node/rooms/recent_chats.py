"""A cache of long chats. A chat can have 2 MB, and a client can join its room with every frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from keepline.room.record import Message, Room
from keepline.room.rules import MAX_MESSAGES

LONG = 50
"""Minimum number of messages of a cached chat: reading a shorter one again is cheap."""

MAX_BYTES = 16 * 1_048_576
_BYTES_OF_A_CHARACTER = 4
_BYTES_OF_A_LINE = 200


class RecentChats:
    """The most recently read chats, up to `max_bytes`. An entry is valid until the room's `last_seq` changes."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._chats: OrderedDict[str, tuple[Sequence[Message], int]] = OrderedDict()

    def of(self, room: Room) -> Sequence[Message] | None:
        """The chat of a room's record; None if it is not cached, or if messages were added."""
        known = self._chats.get(room.room_id)
        if known is None or known[0][-1].seq != room.last_seq:
            return None
        self._chats.move_to_end(room.room_id)
        return known[0]

    def keep(self, room: Room, lines: Sequence[Message]) -> None:
        """Cache a chat, if it is long and complete."""
        if len(lines) < LONG or lines[-1].seq != room.last_seq:
            return
        if len(lines) < min(room.last_seq, MAX_MESSAGES):
            return
        size = sum(_BYTES_OF_A_LINE + _BYTES_OF_A_CHARACTER * len(line.text) for line in lines)
        self._forget(room.room_id)
        self._chats[room.room_id] = lines, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._chats)))

    def _forget(self, room_id: str) -> None:
        _, size = self._chats.pop(room_id, ((), 0))
        self._bytes -= size

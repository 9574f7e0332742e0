"""Redis lookups for connecting clients. Thousands may be needed at once, and concurrent ones leave in one write.

Sending a lookup and waiting for its answer are separate, so that one round trip can serve several lookups.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from keepline.ops.redis.batches import Batches
from keepline.ops.redis.scripts import StoreUnavailable, text, translated
from keepline.room import keys
from keepline.room.codec import BadRecord
from keepline.room.record import Message, Room
from signal_node.rooms.reading import Reader
from signal_node.rooms.recent_chats import RecentChats

Asked = Awaitable[Any]
"""A pending answer from Redis."""


class Lookups:
    """Lookups of single rooms and users."""

    def __init__(self, batches: Batches, reader: Reader, partitions: int) -> None:
        self._batches = batches
        self._reader = reader
        self._partitions = partitions
        self._recent_chats = RecentChats()

    def ask_rooms_of(self, user: str) -> Asked:
        """Request the ids of a user's rooms."""
        return self._batches.ask("SMEMBERS", keys.user_rooms(user))

    def ask_record(self, room_id: str) -> Asked:
        """Request a room's record."""
        return self._batches.ask("GET", keys.room(self._partition(room_id), room_id))

    def ask_chat(self, room: Room) -> Asked | None:
        """Request a room's chat, if there is any that is not known."""
        if not room.last_seq or self._recent_chats.of(room) is not None:
            return None
        return self._batches.ask("XRANGE", keys.chat(self._partition(room.room_id), room.room_id), "-", "+")

    async def rooms_in(self, asked: Asked) -> list[str]:
        """The requested room ids, in order. Raises StoreUnavailable."""
        with translated():
            return sorted(text(room_id) for room_id in await asked)

    async def room_in(self, asked: Asked, room_id: str) -> Room | None:
        """The room of a requested record; None if there is none.

        Raises StoreUnavailable, also for a missing room while its partition is being recovered; BadRecord.
        """
        with translated():
            record = await asked
            whole = record or await self._batches.ask("EXISTS", keys.epoch(self._partition(room_id)))
        if not whole:
            raise StoreUnavailable("this part of Redis is recovering")
        room = None if record is None else self._reader.record(room_id, record)
        if isinstance(room, BadRecord):
            raise room
        return room

    async def chat_in(self, asked: Asked | None, room: Room) -> Sequence[Message]:
        """The chat up to a record, requested again if someone has written since. Raises StoreUnavailable.

        Later messages arrive by themselves.
        """
        if asked is None and (known := self._recent_chats.of(room)) is not None:
            return known
        with translated():
            lines = [] if asked is None else self._reader.lines(room.room_id, await asked)
            if room.last_seq > (lines[-1].seq if lines else 0) and (again := self.ask_chat(room)) is not None:
                lines = self._reader.lines(room.room_id, await again)
        lines = [line for line in lines if line.seq <= room.last_seq]
        self._recent_chats.keep(room, lines)
        return lines

    async def line(self, room_id: str, seq: int) -> Message | None:
        """A message of a room's chat; None if it does not exist. Raises StoreUnavailable."""
        asked = self._batches.ask(
            "XRANGE", keys.chat(self._partition(room_id), room_id), f"{seq}-0", f"{seq}-0"
        )
        with translated():
            lines = self._reader.lines(room_id, await asked)
        return lines[0] if lines else None

    async def forget_rooms(self, user: str, over: Iterable[str]) -> None:
        """Remove rooms from the user's index. Raises StoreUnavailable."""
        with translated():
            await self._batches.ask("SREM", keys.user_rooms(user), *over)

    def _partition(self, room_id: str) -> int:
        return keys.partition_of(room_id, self._partitions)

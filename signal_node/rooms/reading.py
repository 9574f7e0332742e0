"""Reads records and chat messages from Redis. Unreadable ones are skipped, counted, and logged once.

A record may be corrupt, or written by a later release in a format that this one does not know. Nothing here can repair
that, but the other rooms must continue. `keepline doctor` lists such rooms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from keepline.room.codec import BadRecord, decode_message, decode_record
from keepline.room.record import Message, Room

MAX_REMEMBERED = 10_000
"""Number of rooms that are remembered as logged; the oldest are dropped."""

_log = structlog.get_logger(__name__)


class Reader:
    """Reads rooms. `unreadable` counts rooms with unreadable data."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._logged: dict[str, None] = {}

    def record(self, room_id: str, data: bytes) -> Room | BadRecord:
        """The room, or what is wrong with its record."""
        try:
            return decode_record(data)
        except BadRecord as error:
            self._skip(room_id, error)
            return error

    def lines(self, room_id: str, entries: Iterable[tuple[Any, Any]]) -> list[Message]:
        """The readable messages of a room's chat."""
        lines = []
        for _, fields in entries:
            try:
                lines.append(decode_message(fields.get(b"message", b"")))
            except BadRecord as error:
                self._skip(room_id, error)
        return lines

    def _skip(self, room_id: str, error: BadRecord) -> None:
        if room_id in self._logged:
            return
        if len(self._logged) >= MAX_REMEMBERED:
            del self._logged[next(iter(self._logged))]
        self._logged[room_id] = None
        self.unreadable += 1
        _log.error("room_unreadable", room=room_id, error=str(error))

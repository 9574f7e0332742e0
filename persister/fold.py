"""From events to what must be written: pure, so that any order and any split can be tried in a test.

Of each room only the last version counts; its messages are collected apart, because a batch that comes late must
still add its messages although its version is old news. Everything is sorted by room id, so that workers that
write at the same time take their locks in one order and never wait for each other in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from keepline.room.codec import decode_event, message_to_dict
from keepline.room.rows import RoomRow, to_row


class Unwritable(ValueError):
    """An event that no table can take; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one event asks for: a room in one version, and perhaps a message (as it is stored)."""

    row: RoomRow
    message: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What to write in one transaction, sorted by room id; messages ascend by `seq` within their room."""

    rows: tuple[RoomRow, ...]
    messages: tuple[tuple[UUID, tuple[dict[str, Any], ...]], ...]

    @property
    def users(self) -> list[UUID]:
        """The members of all rooms, each once, sorted."""
        return sorted({user for row in self.rows for user in (row.user_1, row.user_2)})


def change_of(data: bytes) -> Change:
    """Read an event. Raises Unwritable when it is broken or names what cannot be a row."""
    try:
        event = decode_event(data)
        row = to_row(event.room)
    except (ValueError, OverflowError, OSError, AttributeError, TypeError) as error:
        raise Unwritable(str(error) or type(error).__name__) from error
    return Change(row, None if event.message is None else message_to_dict(event.message))


def fold(changes: Iterable[Change]) -> Batch:
    """Reduce changes, in any order, to the last version of each room and all messages."""
    rows: dict[UUID, RoomRow] = {}
    messages: defaultdict[UUID, dict[int, dict[str, Any]]] = defaultdict(dict)
    for change in changes:
        room_id = change.row.room_id
        known = rows.get(room_id)
        if known is None or known.version < change.row.version:
            rows[room_id] = change.row
        if change.message is not None:
            messages[room_id].setdefault(change.message["seq"], change.message)
    return Batch(
        rows=tuple(rows[room_id] for room_id in sorted(rows)),
        messages=tuple(
            (room_id, tuple(by_seq[seq] for seq in sorted(by_seq)))
            for room_id, by_seq in sorted(messages.items())
        ),
    )

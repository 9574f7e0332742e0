"""From events to what must be written: pure, so that any order and any split can be tried in a test.

Of each room only the last version counts, and for its activity the last one as a text room; its messages are
collected apart, because a batch that comes late must still add its messages although its version is old news.
Everything is sorted by room id, so that workers that write at the same time take their locks in one order and never
wait for each other in a circle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from keepline.room.codec import decode_event, message_to_dict
from keepline.room.rows import ActivityRow, RoomRow, to_activity, to_row


class Unwritable(ValueError):
    """An event that no table can take; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one event asks for: a room in one version, and perhaps a message (as it is stored)."""

    row: RoomRow
    activity: ActivityRow | None
    message: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What to write in one transaction, sorted by room id; messages ascend by `seq` within their room."""

    rows: tuple[RoomRow, ...]
    activities: tuple[ActivityRow, ...]
    messages: tuple[tuple[UUID, tuple[dict[str, Any], ...]], ...]

    @property
    def users(self) -> list[UUID]:
        """The members of all rooms, each once, sorted."""
        return sorted({user for row in self.rows for user in (row.user_1, row.user_2)})


def change_of(data: bytes) -> Change:
    """Read an event. Raises Unwritable when it is broken or names what cannot be a row."""
    try:
        event = decode_event(data)
        row, activity = to_row(event.room), to_activity(event.room)
    except (ValueError, OverflowError, OSError, AttributeError, TypeError) as error:
        raise Unwritable(str(error) or type(error).__name__) from error
    return Change(row, activity, None if event.message is None else message_to_dict(event.message))


class _Versioned(Protocol):
    @property
    def room_id(self) -> UUID: ...

    @property
    def version(self) -> int: ...


_Row = TypeVar("_Row", bound=_Versioned)


def fold(changes: Iterable[Change]) -> Batch:
    """Reduce changes, in any order, to the last version of each room and all messages."""
    rows: dict[UUID, RoomRow] = {}
    activities: dict[UUID, ActivityRow] = {}
    messages: defaultdict[UUID, dict[int, dict[str, Any]]] = defaultdict(dict)
    for change in changes:
        _keep_newer(rows, change.row)
        if change.activity is not None:
            _keep_newer(activities, change.activity)
        if change.message is not None:
            messages[change.row.room_id].setdefault(change.message["seq"], change.message)
    return Batch(
        rows=tuple(rows[room_id] for room_id in sorted(rows)),
        activities=tuple(activities[room_id] for room_id in sorted(activities)),
        messages=tuple(
            (room_id, tuple(by_seq[seq] for seq in sorted(by_seq)))
            for room_id, by_seq in sorted(messages.items())
        ),
    )


def _keep_newer(rows: dict[UUID, _Row], row: _Row) -> None:
    known = rows.get(row.room_id)
    if known is None or known.version < row.version:
        rows[row.room_id] = row

"""What one member of a room says about the other, as nodes tell the persister of it: an event in the room's stream.

Its id follows from who says what of which room. So the same report, sent again because its answer was lost, is the same
row, and the one that came first stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta, Struct

from keepline.room.kinds import decode_as

KIND: Final = "report"
FORMAT: Final = 1

MAX_REASON = 500
"""Characters in the reason of a report."""

_NAMESPACE = UUID("3e9d0c0a-5f3b-4b7e-9a35-6a0f7c1d2e44")


@dataclass(frozen=True, slots=True)
class Report:
    """A report; `reported_at` in ms since 1970. `session_data` is what was known of the room, as JSON types."""

    report_id: UUID
    room_id: UUID
    reporter_id: UUID
    reported_id: UUID
    reason: str
    reported_at: Annotated[int, Meta(ge=0, le=2**53)]
    session_data: dict[str, Any]


class _Event(Struct, frozen=True):
    format: Literal[1]
    kind: Literal["report"]
    report: Report


def report_id(room_id: UUID, reporter_id: UUID, reason: str) -> UUID:
    """The id of what a user says about a room, the same whenever it is said."""
    return uuid5(_NAMESPACE, f"{room_id} {reporter_id} {reason}")


def encode_report(report: Report) -> bytes:
    """The event's JSON."""
    return msgspec.json.encode(_Event(FORMAT, KIND, report))


def decode_report(data: bytes | str) -> Report:
    """The report behind an event's JSON. Raises BadRecord, also for a format of another release."""
    return decode_as(_Event, data, "a report").report

"""A report of one member about the other: an event in the room's stream, for the persister.

Its id is derived from reporter, room and reason. So a report that is sent again because its answer was lost maps to the
same row, and the first one stays.
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
"""Maximum characters in the reason of a report."""

_NAMESPACE = UUID("3e9d0c0a-5f3b-4b7e-9a35-6a0f7c1d2e44")


@dataclass(frozen=True, slots=True)
class Report:
    """A report; `reported_at` is in ms since 1970. `session_data` is what was known of the room, as JSON types."""

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
    """The id of a user's report about a room, the same at any time."""
    return uuid5(_NAMESPACE, f"{room_id} {reporter_id} {reason}")


def encode_report(report: Report) -> bytes:
    """Encode the event as JSON."""
    return msgspec.json.encode(_Event(FORMAT, KIND, report))


def decode_report(data: bytes | str) -> Report:
    """Decode an event. Raises BadRecord, also for a format of another release."""
    return decode_as(_Event, data, "a report").report

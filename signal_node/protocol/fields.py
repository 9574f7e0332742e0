"""The values in frames, and their bounds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

SUBPROTOCOL = "keepline.v1"

LARGEST_INTEGER = 2**53 - 1
"""The largest integer that every JSON parser reads exactly (RFC 8259, 6)."""

RequestId = (
    Annotated[str, Meta(min_length=1, max_length=64)]
    | Annotated[int, Meta(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
    | float
)
ROOM_ID_LENGTH = 36
RoomId = Annotated[str, Meta(min_length=ROOM_ID_LENGTH, max_length=ROOM_ID_LENGTH)]
MAX_KEY = 64
"""Maximum characters in the key of a chat message."""

ChatKey = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
StreamId = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]

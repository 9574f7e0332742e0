"""The error codes of the protocol."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong with one frame."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    NOT_A_MEMBER = "not_a_member"
    ROOM_NOT_FOUND = "room_not_found"
    ROOM_ENDED = "room_ended"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too_large"
    UNKNOWN_TYPE = "unknown_type"

"""A referral: a code that refers to a user, in the form for Redis and in the form of an event for the persister."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from keepline.room.kinds import decode_as

KIND: Final = "referral"
FORMAT: Final = 1

MAX_CODE = 50
MAX_NAME = 200
"""Maximum characters in a code, and in each of the names."""


@dataclass(frozen=True, slots=True)
class Referral:
    """A referral; `created_at` is in ms since 1970."""

    referral_code: Annotated[str, Meta(min_length=1, max_length=MAX_CODE)]
    target_user_id: UUID
    created_by_user_id: UUID
    target_name: str | None
    created_by_name: str | None
    created_at: Annotated[int, Meta(ge=0, le=2**53)]


class _Event(Struct, frozen=True):
    format: Literal[1]
    kind: Literal["referral"]
    referral: Referral


def encode_referral(referral: Referral) -> bytes:
    """Encode the event as JSON."""
    return msgspec.json.encode(_Event(FORMAT, KIND, referral))


def decode_referral(data: bytes | str) -> Referral:
    """Decode an event. Raises BadRecord, also for a format of another release."""
    return decode_as(_Event, data, "a referral").referral

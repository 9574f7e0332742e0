"""A code that leads to a user, made by a user: as Redis keeps it, and as nodes tell the persister of it."""

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
"""Characters in a code, and in each of the names."""


@dataclass(frozen=True, slots=True)
class Referral:
    """A referral; `created_at` in ms since 1970."""

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
    """The event's JSON."""
    return msgspec.json.encode(_Event(FORMAT, KIND, referral))


def decode_referral(data: bytes | str) -> Referral:
    """The referral behind an event's JSON. Raises BadRecord, also for a format of another release."""
    return decode_as(_Event, data, "a referral").referral

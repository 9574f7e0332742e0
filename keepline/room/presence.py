"""What a persister says of itself in Redis, and how it is written there."""

from __future__ import annotations

import msgspec

SILENT_MS = 30_000
"""A persister that has said nothing for so long does not run."""


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """`at` is when it was said, ms since 1970; `database` names the database itself, None as long as it is unknown."""

    at: int = 0
    database: str | None = None
    error: str | None = None


def encode_presence(presence: Presence) -> bytes:
    """Return the JSON that `decode_presence` reads."""
    return msgspec.json.encode(presence)


def decode_presence(data: bytes) -> Presence:
    """Read a presence; what cannot be read is one that is long gone."""
    try:
        return msgspec.json.decode(data, type=Presence)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Presence()

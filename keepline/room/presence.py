"""The presence record that a persister writes to Redis."""

from __future__ import annotations

import msgspec

SILENT_MS = 30_000
"""A persister whose presence is older than this is not running."""


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """`at` is when it was written, in ms since 1970. `database` identifies the database; None while it is unknown."""

    at: int = 0
    database: str | None = None
    error: str | None = None


def encode_presence(presence: Presence) -> bytes:
    """Encode the presence as JSON for `decode_presence`."""
    return msgspec.json.encode(presence)


def decode_presence(data: bytes) -> Presence:
    """Decode a presence. An unreadable one counts as long expired."""
    try:
        return msgspec.json.decode(data, type=Presence)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Presence()

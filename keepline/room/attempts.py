"""Failed logins of one address, as nodes tell the persister of them: an event in the streams of the rooms.

It says how many there were when the last one came, not that there was one more: read twice, late or never, it does no
harm, and of two about one address the later one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from keepline.room.codec import BadRecord

KIND = "attempts"
FORMAT = 1

_TIMES = ("first_at", "last_at", "expires_at")


@dataclass(frozen=True, slots=True)
class Attempts:
    """Failed logins within the window, times in ms since 1970. From `expires_at` on they count no more."""

    address: str
    attempts: int
    first_at: int
    last_at: int
    expires_at: int

    def is_newer_than(self, other: Attempts) -> bool:
        """Which of two about the same address counts."""
        return (self.last_at, self.attempts) > (other.last_at, other.attempts)


def encode_attempts(attempts: Attempts) -> bytes:
    """The event's JSON."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "address": attempts.address,
        "attempts": attempts.attempts,
        **{name: getattr(attempts, name) for name in _TIMES},
    }
    return orjson.dumps(body)


def decode_attempts(data: bytes | str) -> Attempts:
    """The attempts behind an event's JSON. Raises BadRecord, also for a format of another release."""
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise BadRecord("not an event about attempts")
    if raw.get("format") != FORMAT:
        raise BadRecord(f"attempts of format {raw.get('format')!r}; this release reads format {FORMAT}")
    address = raw.get("address")
    numbers = {name: raw.get(name) for name in ("attempts", *_TIMES)}
    wrong = [name for name, number in numbers.items() if type(number) is not int or number < 0]
    if not isinstance(address, str) or wrong:
        raise BadRecord(f"not attempts: the address or {wrong} cannot be")
    return Attempts(address, **{name: int(raw[name]) for name in numbers})

"""Failed logins of one IP address: an event that nodes send to the persister in the event streams.

The event has the total count, not an increment, so reading it twice, late or never does no harm. Of two events about
one address, the later one counts.
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
    """Failed logins within the window, with times in ms since 1970. They no longer count from `expires_at` on."""

    address: str
    attempts: int
    first_at: int
    last_at: int
    expires_at: int

    def is_newer_than(self, other: Attempts) -> bool:
        """Whether these attempts supersede `other`, which is about the same address."""
        return (self.last_at, self.attempts) > (other.last_at, other.attempts)


def encode_attempts(attempts: Attempts) -> bytes:
    """Encode the event as JSON."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "address": attempts.address,
        "attempts": attempts.attempts,
        **{name: getattr(attempts, name) for name in _TIMES},
    }
    return orjson.dumps(body)


def decode_attempts(data: bytes | str) -> Attempts:
    """Decode an event. Raises BadRecord, also for a format of another release."""
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise BadRecord("not an event about failed logins")
    if raw.get("format") != FORMAT:
        raise BadRecord(f"attempts of format {raw.get('format')!r}; this release reads format {FORMAT}")
    address = raw.get("address")
    numbers = {name: raw.get(name) for name in ("attempts", *_TIMES)}
    wrong = [name for name, number in numbers.items() if type(number) is not int or number < 0]
    if not isinstance(address, str) or wrong:
        raise BadRecord(f"not failed logins: invalid address or {wrong}")
    return Attempts(address, **{name: int(raw[name]) for name in numbers})

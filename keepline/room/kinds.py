"""The kinds of events that are not about a room.

They use the same streams as events about rooms, because they are as safe there. Each kind has its own module.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from keepline.room.codec import BadRecord

_KIND = re.compile(rb'"kind":"(\w+)"')
_WITHIN_BYTES = 64

T = TypeVar("T")


def kind_of(data: bytes) -> str:
    """Read the kind of an event without decoding it; empty if it has none."""
    found = _KIND.search(data, 0, _WITHIN_BYTES)
    return found[1].decode() if found else ""


def decode_as(form: type[T], data: bytes | str, what: str) -> T:
    """Decode an event of that form. Raises BadRecord, whose message never quotes a value, which may be chat."""
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not {what}: {error}") from error

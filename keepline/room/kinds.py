"""Events in the streams that are not about a room but about something beside it, told by their kind.

They travel in the streams of the rooms, because there they are as safe as those; each has a module of its own.
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
    """The kind that an event says it is of, without decoding it; empty when it says none."""
    found = _KIND.search(data, 0, _WITHIN_BYTES)
    return found[1].decode() if found else ""


def decode_as(form: type[T], data: bytes | str, what: str) -> T:
    """The event of that form behind its JSON. Raises BadRecord, which shows no value: it may be chat."""
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not {what}: {error}") from error

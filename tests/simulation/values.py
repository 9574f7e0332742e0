"""The values that the Redis of the simulation holds."""

from __future__ import annotations

from dataclasses import dataclass, field

EntryId = tuple[int, int]


@dataclass(slots=True)
class Stream:
    """Entries in order, and how far a consumer group has come."""

    entries: list[tuple[EntryId, dict[bytes, bytes]]] = field(default_factory=list)
    last_id: EntryId = (0, 0)
    read_to: EntryId = (0, 0)
    pending: dict[EntryId, tuple[str, float]] = field(default_factory=dict)
    """What was read and not acknowledged: by whom, and when."""


class SortedSet(dict[bytes, float]):
    """Members with their scores."""

    def between(self, low: float, high: float) -> list[bytes]:
        found = sorted((score, member) for member, score in self.items() if low <= score <= high)
        return [member for _, member in found]


class Hash(dict[bytes, bytes]):
    """Fields with their values."""


Value = bytes | set[bytes] | SortedSet | Hash | Stream


def id_of(text: bytes) -> EntryId:
    """The id behind its text; one number is the first of that millisecond."""
    ms, _, count = text.partition(b"-")
    return int(ms), int(count or 0)


def id_text(entry_id: EntryId) -> bytes:
    """An id as Redis writes it."""
    return b"%d-%d" % entry_id

"""The keys of lines of chat: by them a line that is asked for again is found, and not written twice.

A client draws a key at random for each line and sends the same one when it asks again. Each side of the record names
the keys of its last lines. So whatever keeps the record keeps them as well: the caches of nodes, which put back what
Redis has lost, and Postgres, where the stored lines have theirs.
"""

from __future__ import annotations

from collections.abc import Iterable

from keepline.room.record import ChatKey, Message, Room, Side

MAX_CHAT_KEYS = 32
"""Keys that the record names of each side. A client that, like the SDKs, waits for the answer to a line before it sends
the next needs one.
"""


def seq_of(room: Room, key: str) -> int | None:
    """The number of the line that was written with the key, by either side; None when none was."""
    return next((seq for side in room.sides for known, seq in side.chat_keys if known == key), None)


def with_key(side: Side, key: str, seq: int) -> tuple[ChatKey, ...]:
    """The keys of a side that has written one line more."""
    return (*side.chat_keys, (key, seq))[-MAX_CHAT_KEYS:]


def keys_of(user: str, messages: Iterable[Message]) -> tuple[ChatKey, ...]:
    """The keys of a user's last lines, from the lines themselves."""
    keyed = [(line.key, line.seq) for line in messages if line.sender == user and line.key is not None]
    return tuple(keyed[-MAX_CHAT_KEYS:])

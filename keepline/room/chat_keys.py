"""Keys of chat messages. They identify a message that is sent again, so that it is not stored twice.

A client chooses a random key for each message, and uses it again when it retries. Each side of the record has the keys
of its last messages, so they are kept wherever the record is: in the caches of the nodes, which restore what Redis has
lost, and in Postgres, where the stored messages have their keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from keepline.room.record import ChatKey, Message, Room, Side

MAX_CHAT_KEYS = 32
"""Number of keys that the record keeps for each side. A client that waits for the answer to a message before it sends
the next one, as the SDKs do, needs only one.
"""


def seq_of(room: Room, key: str) -> int | None:
    """The number of the message with the key, from either side; None if there is none."""
    return next((seq for side in room.sides for known, seq in side.chat_keys if known == key), None)


def with_key(side: Side, key: str, seq: int) -> tuple[ChatKey, ...]:
    """The keys of a side after one more message."""
    return (*side.chat_keys, (key, seq))[-MAX_CHAT_KEYS:]


def keys_of(user: str, messages: Iterable[Message]) -> tuple[ChatKey, ...]:
    """The keys of a user's last messages, taken from the messages themselves."""
    keyed = [(line.key, line.seq) for line in messages if line.sender == user and line.key is not None]
    return tuple(keyed[-MAX_CHAT_KEYS:])

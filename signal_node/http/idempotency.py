"""Which room a request has opened, by its Idempotency-Key: asking again opens no second one.

The id of the room is kept before the room is opened, so it does not matter where a request got lost. It is kept for as
long as a tombstone, and a room is known for longer: no id is given to a second room.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from uuid import uuid4

from keepline.ops.redis.client import Client
from keepline.ops.redis.scripts import text, translated
from keepline.room import keys

HEADER = "Idempotency-Key"
MAX_KEY = 255


class IdempotencyKeys:
    """The keys of one cluster."""

    def __init__(self, client: Client, partitions: int, keep_ms: int, now: Callable[[], int]) -> None:
        """Take `now()` in ms since 1970."""
        self._client = client
        self._partitions = partitions
        self._keep_ms = keep_ms
        self._now = now

    async def room_id(self, key: str) -> str:
        """The id of the room that belongs to a key, a new one at the first time. Raises StoreUnavailable."""
        digest = sha256(key.encode()).hexdigest()
        name = keys.idempotency(keys.partition_of(digest, self._partitions), digest)
        with translated():
            while True:
                room_id, now = str(uuid4()), self._now()
                if await self._client.set(name, f"{room_id} {now}", px=self._keep_ms, nx=True):
                    return room_id
                found = await self._client.get(name)
                if found is None:
                    continue
                kept, at = text(found).split()
                if now - int(at) <= self._keep_ms:
                    return kept
                await self._client.delete(name)  # it outlived its time, for Redis' clock was set back

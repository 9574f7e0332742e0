"""Dead letters in Redis: events that no persister could write, with the reason. To inspect and replay them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from keepline.cli.base import running
from keepline.cli.base.errors import CommandError, UsageError
from keepline.cli.cluster.access import DATA, connect, redis_url
from keepline.ops import redis
from keepline.ops.redis.scripts import Script
from keepline.room import attempts, keys, referrals, reports
from keepline.room.codec import EVENT_FIELD, BadRecord, decode_event
from keepline.room.kinds import kind_of

PAGE = 200
"""Number of letters to read or replay at once."""

_ID = re.compile(r"(\d{2,4}):(\d{1,20}-\d{1,20})")


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """The id of a letter: its partition and its stream entry, written as `07:1790000000000-0`."""

    partition: int
    entry: str

    def __str__(self) -> str:
        return f"{self.partition:02d}:{self.entry}"

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Parse an id as printed by `list`. Raises UsageError."""
        match = _ID.fullmatch(text)
        if match is None:
            raise UsageError(f"{text} is not the id of a dead letter; an id looks like 07:1790000000000-0")
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class About:
    """The subject of an event: its kind, the room it names, and that room's version if the event has the whole room."""

    kind: str
    room: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Letter:
    """An event that could not be written. `buried_at` is ms since 1970. `entry` was its id in the event stream."""

    id: LetterId
    buried_at: int
    reason: str
    entry: str
    data: bytes

    def about(self) -> About | None:
        """The subject of the event; None if it cannot be read, which may be why it is a dead letter."""
        try:
            return _about(self.data)
        except BadRecord:
            return None


def _about(data: bytes) -> About:
    match kind_of(data):
        case reports.KIND as kind:
            return About(kind, str(reports.decode_report(data).room_id), None)
        case referrals.KIND as kind:
            referrals.decode_referral(data)
            return About(kind, None, None)
        case attempts.KIND as kind:
            attempts.decode_attempts(data)
            return About(kind, None, None)
        case _:
            event = decode_event(data)
            return About(event.kind, event.room.room_id, event.room.version)


class DeadLetters:
    """The dead letters of all partitions of one Redis. Methods raise RedisError or OSError if it is away."""

    def __init__(self, client: redis.Client) -> None:
        self._client = client
        self._replay = Script(client, __package__, "replay.lua")

    async def count(self) -> int:
        """Number of dead letters."""
        return sum([await self._client.xlen(keys.dead_letters(p)) for p in await self._partitions()])

    async def newest(self, limit: int) -> list[Letter]:
        """The latest letters, newest first."""
        letters: list[Letter] = []
        for partition in await self._partitions():
            entries: Any = await self._client.xrevrange(keys.dead_letters(partition), count=limit)
            letters += [_letter(partition, entry) for entry in entries]
        return sorted(letters, key=lambda letter: letter.buried_at, reverse=True)[:limit]

    async def get(self, wanted: LetterId) -> Letter | None:
        """One letter; None if there is none with that id."""
        stream = keys.dead_letters(wanted.partition)
        found = await self._client.xrange(stream, min=wanted.entry, max=wanted.entry)
        return _letter(wanted.partition, found[0]) if found else None

    async def replay(self, wanted: Iterable[LetterId]) -> list[LetterId]:
        """Move letters back to the events, and return the ids of those that existed."""
        return [letter for letter in wanted if await self._put_back(letter)]

    async def replay_all(self) -> int:
        """Move all current letters back to the events, and return their number. Letters that fail again
        meanwhile stay.
        """
        replayed = 0
        for partition in await self._partitions():
            stream = keys.dead_letters(partition)
            last: Any = await self._client.xrevrange(stream, count=1)
            while last:
                page: Any = await self._client.xrange(stream, max=last[0][0], count=PAGE)
                if not page:
                    break
                ids = [LetterId(partition, entry.decode()) for entry, _ in page]
                replayed += len(await self.replay(ids))
        return replayed

    async def _put_back(self, letter: LetterId) -> bool:
        streams = [keys.dead_letters(letter.partition), keys.events(letter.partition)]
        return bool(await self._replay.evaluate(streams, [letter.entry, EVENT_FIELD]))

    async def _partitions(self) -> range:
        written = await self._client.get(keys.partitions())
        return range(keys.DEFAULT_PARTITIONS if written is None else int(written))


def _letter(partition: int, entry: Any) -> Letter:
    entry_id, fields = entry
    return Letter(
        id=LetterId(partition, entry_id.decode()),
        buried_at=int(entry_id.partition(b"-")[0]),
        reason=fields.get(b"reason", b"").decode(errors="replace"),
        entry=fields.get(b"entry", b"").decode(errors="replace"),
        data=fields.get(EVENT_FIELD.encode(), b""),
    )


@asynccontextmanager
async def dead_letters(environ: Mapping[str, str]) -> AsyncIterator[DeadLetters]:
    """Open the dead letters of the cluster that REDIS_URL and KEEPLINE_REDIS_PREFIX name, or of the one that runs here.

    Raises UsageError for a URL that is none, and CommandError in the place of whatever Redis raises.
    """
    environ = running.surroundings(environ, DATA)
    client = connect(redis_url(environ), environ, max_connections=2)
    try:
        yield DeadLetters(client)
    except (RedisError, OSError) as error:
        raise CommandError(f"cannot reach Redis: {str(error) or type(error).__name__}") from error
    finally:
        await client.aclose()

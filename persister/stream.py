"""The event streams as one queue, read by any number of persisters.

An entry is delivered to one persister at a time, and again to another if it is not acknowledged in time: at least once.
Entries of one room come in order within a read, but a claimed one may come late. No entry leaves a stream before it is
acknowledged.

On a single Redis, one command reads all streams and waits for the first entry. On a cluster, no command can span
streams of several slots. There each stream is polled separately, with one write per server, until there is an entry.
Streams of an unreachable server are skipped meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from redis.exceptions import RedisError, ResponseError

from keepline.ops.redis.adoption import adopt
from keepline.ops.redis.client import Client, is_cluster
from keepline.ops.redis.cluster_time import read_time
from keepline.ops.redis.partitions import agree_on_partitions
from keepline.ops.redis.requirements import require_for_persister
from keepline.ops.redis.scripts import Script
from keepline.room import keys

GROUP = "persister"
EVENT_FIELD = b"event"
MAX_DEAD_LETTERS = 10_000
"""Dead letters kept per partition; beyond that, the oldest are dropped."""

POLL_SECONDS = 0.1
"""Interval of polling the streams of a cluster."""

_GONE_MS = 3_600_000


class StreamsLost(Exception):
    """A stream or its consumer group is missing: Redis has lost data. Call `prepare` again."""


class Entry(Struct, frozen=True, gc=False):
    """One entry of a stream: an event as a node wrote it."""

    partition: int
    id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog: unread entries, unacknowledged entries, age of the oldest.

    `oldest_seconds` is the age of the oldest entry of both, 0 if there is none. `oldest_pending_seconds` is that of the
    oldest unacknowledged entry. `fullest` is the length of the longest stream, including acknowledged entries that are
    not trimmed yet. `partitions` has the number of entries and the age of the oldest, per partition.
    """

    unread: int
    unacknowledged: int
    oldest_seconds: float
    oldest_pending_seconds: float
    fullest: int
    dead_letters: int
    partitions: Sequence[tuple[int, float]]


class EventStreams:
    """The event streams of all partitions, read under the name of one persister.

    Every method raises `redis.exceptions.RedisError` or OSError if Redis cannot be reached.
    """

    def __init__(
        self, client: Client, consumer: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._consumer = consumer
        self._monotonic = monotonic
        # with the time since when, by this machine's clock
        self._oldest: dict[bytes, tuple[bytes, float]] = {}
        self._partitions = 0
        self._streams: dict[bytes, int] = {}
        self._bury = Script(client, __package__, "bury.lua")
        self._prune = Script(client, __package__, "prune.lua")

    async def prepare(self) -> None:
        """Create the consumer group if it is missing, from the first entry on. Raises CannotRun."""
        if not self._partitions:
            await require_for_persister(self._client)
        await adopt(self._client)
        self._partitions = await agree_on_partitions(
            self._client, self._partitions or keys.DEFAULT_PARTITIONS
        )
        self._streams = {keys.events(p).encode(): p for p in range(self._partitions)}
        for stream in self._streams:
            try:
                await self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """Return about `count` unread entries, waiting up to `block_ms` for the first.

        Raises StreamsLost.
        """
        each = -(-count // self._partitions)
        if is_cluster(self._client):
            return await self._poll(each, block_ms)
        wanted: Any = dict.fromkeys(self._streams, ">")
        try:
            reply = await self._client.xreadgroup(GROUP, self._consumer, wanted, count=each, block=block_ms)
        except ResponseError as error:
            raise _lost(error) from error
        return self._entries(reply)

    async def read_own(self, count: int) -> list[Entry]:
        """Return about `count` entries that were read under this name before and never acknowledged.

        The answer with them was lost, or their reader died. Raises StreamsLost.
        """
        each = -(-count // self._partitions)
        async with self._client.pipeline(transaction=False) as pipe:
            for stream in self._streams:
                pipe.xreadgroup(GROUP, self._consumer, {stream: "0"}, count=each)
            replies, lost = _answered(await pipe.execute(raise_on_error=False))
        entries = [entry for reply in replies for entry in self._entries(reply)]
        if lost is not None and not entries:
            raise lost
        return entries

    async def _poll(self, each: int, block_ms: int) -> list[Entry]:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + block_ms / 1000
        while True:
            async with self._client.pipeline(transaction=False) as pipe:
                for stream in self._streams:
                    pipe.xreadgroup(GROUP, self._consumer, {stream: ">"}, count=each)
                replies, lost = _answered(await pipe.execute(raise_on_error=False))
            entries = [entry for reply in replies for entry in self._entries(reply)]
            if lost is not None and not entries:
                raise lost
            if entries or loop.time() >= give_up_at:
                return entries
            await asyncio.sleep(POLL_SECONDS)

    def _entries(self, reply: Any) -> list[Entry]:
        return [
            Entry(self._streams[stream], entry_id, _data(fields))
            for stream, chunks in (reply or {}).items()
            for chunk in chunks
            for entry_id, fields in chunk
            if fields  # otherwise its content is gone; `claim` counts it
        ]

    async def claim(self, count: int, idle_ms: int) -> tuple[list[Entry], int]:
        """Claim about `count` entries that were read at least `idle_ms` ago and never acknowledged.

        They come from dead persisters, including previous runs of this one. The second value is the number of entries
        whose content is gone, because a stream reached its limit. Redis measures idle time by its own clock. If that
        was set back, Redis takes old entries for new; then this process' clock decides. Raises StreamsLost.
        """
        each = -(-count // self._partitions)
        async with self._client.pipeline(transaction=False) as pipe:
            for stream in self._streams:
                idle = 0 if self._standing(stream) * 1_000 > 2 * idle_ms else idle_ms
                pipe.xautoclaim(stream, GROUP, self._consumer, idle, "0-0", count=each)
            replies, lost = _answered(await pipe.execute(raise_on_error=False))
        entries = [
            Entry(partition, entry_id, _data(fields))
            for partition, reply in zip(self._streams.values(), replies, strict=True)
            if reply is not None
            for entry_id, fields in reply[1]
        ]
        if lost is not None and not entries:
            raise lost
        return entries, sum(len(reply[2]) for reply in replies if reply is not None)

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        """Acknowledge entries, so that they are not delivered again."""
        by_partition: defaultdict[int, list[bytes]] = defaultdict(list)
        for entry in entries:
            by_partition[entry.partition].append(entry.id)
        async with self._client.pipeline(transaction=False) as pipe:
            for partition, ids in by_partition.items():
                pipe.xack(keys.events(partition), GROUP, *ids)
            await pipe.execute()

    async def bury(self, entry: Entry, reason: str) -> None:
        """Move an entry that cannot be written to the dead letters, with the reason."""
        await self._bury.evaluate(
            [keys.events(entry.partition), keys.dead_letters(entry.partition)],
            [
                GROUP,
                entry.id,
                MAX_DEAD_LETTERS,
                "entry",
                entry.id,
                "reason",
                reason,
                EVENT_FIELD,
                entry.data,
            ],
        )

    async def trim(self) -> int:
        """Delete acknowledged entries and return their number. Raises StreamsLost."""
        trimmed = 0
        for stream in self._streams:
            position = await self._position(stream)
            trimmed += int(await self._client.xtrim(stream, minid=position.done, approximate=False))
        return trimmed

    async def backlog(self) -> Backlog:
        """Measure the backlog. Raises StreamsLost."""
        seconds, _ = await read_time(self._client)
        positions = [await self._position(stream) for stream in self._streams]
        ages = [
            self._age(stream, p.oldest, seconds) for stream, p in zip(self._streams, positions, strict=True)
        ]
        pending = [age for age, p in zip(ages, positions, strict=True) if p.unacknowledged]
        return Backlog(
            unread=sum(p.unread for p in positions),
            unacknowledged=sum(p.unacknowledged for p in positions),
            oldest_seconds=max(ages, default=0.0),
            oldest_pending_seconds=max(pending, default=0.0),
            dead_letters=sum(p.dead_letters for p in positions),
            partitions=[(p.unread + p.unacknowledged, age) for p, age in zip(positions, ages, strict=True)],
            fullest=max((p.length for p in positions), default=0),
        )

    def _age(self, stream: bytes, oldest: bytes | None, redis_seconds: float) -> float:
        """The age of the oldest entry of a stream, correct even if Redis' clock was set back since the entry
        was added.
        """
        if oldest is None:
            self._oldest.pop(stream, None)
            return 0.0
        if self._oldest.get(stream, (b"", 0.0))[0] != oldest:
            self._oldest[stream] = oldest, self._monotonic()
        return max(redis_seconds - _ms_of(oldest) / 1_000, self._standing(stream))

    def _standing(self, stream: bytes) -> float:
        """For how many seconds this process has seen the same oldest entry in a stream."""
        now = self._monotonic()
        return now - self._oldest.get(stream, (b"", now))[1]

    async def remove_gone_consumers(self) -> int:
        """Remove consumers that were idle for an hour and have no pending entries, and return their number."""
        return sum([int(await self._prune.evaluate([stream], [GROUP, _GONE_MS])) for stream in self._streams])

    async def _position(self, stream: bytes) -> _Position:
        """Read the state of one stream in one transaction: group, pending entries and length."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xinfo_groups(stream)
            pipe.xpending(stream, GROUP)
            pipe.xlen(stream)
            pipe.xlen(keys.dead_letters(self._streams[stream]))
            try:
                groups, pending, length, dead_letters = await pipe.execute()
            except ResponseError as error:
                raise _lost(error) from error
        group = next((g for g in groups if g["name"] == GROUP.encode()), None)
        if group is None:
            raise StreamsLost("a consumer group is missing")
        read_to: bytes = group["last-delivered-id"]
        # Redis cannot always tell the lag. The length of the stream is an upper bound.
        unread = length if group["lag"] is None else group["lag"]
        read: bytes | None = pending["min"]
        oldest = read
        if read is None and unread:
            following: Any = await self._client.xrange(stream, min=b"(" + read_to, count=1)
            oldest = following[0][0] if following else None
        return _Position(
            done=_after(read_to) if read is None else read,
            unread=unread,
            unacknowledged=pending["pending"],
            oldest=oldest,
            length=length,
            dead_letters=dead_letters,
        )


@dataclass(frozen=True, slots=True)
class _Position:
    done: bytes  # the first id that must be kept
    unread: int
    unacknowledged: int
    oldest: bytes | None
    length: int
    dead_letters: int


def _data(fields: dict[bytes, bytes]) -> bytes:
    return fields.get(EVENT_FIELD, b"")


def _ms_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _after(entry_id: bytes) -> bytes:
    """Return the next greater id."""
    ms, _, sequence = entry_id.partition(b"-")
    return b"%s-%d" % (ms, int(sequence) + 1)


def _answered(replies: list[Any]) -> tuple[list[Any], StreamsLost | None]:
    """Return the replies, with None for errors, if there is any reply.

    Otherwise raises the first error.
    """
    errors = [_lost(reply) for reply in replies if isinstance(reply, RedisError)]
    lost = next((error for error in errors if isinstance(error, StreamsLost)), None)
    if errors and len(errors) == len(replies):
        raise lost or errors[0]
    return [None if isinstance(reply, RedisError) else reply for reply in replies], lost


def _lost(error: RedisError) -> Exception:
    text = str(error)
    return StreamsLost(text) if "NOGROUP" in text or "no such key" in text else error

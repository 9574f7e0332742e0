"""Rooms in Redis: reads them, and commits changes with the only script that writes them.

Guarantees of `commit`: a change is stored completely (record, event, deadline, chat, `held`, notices) or not at all. It
is stored only on top of the version it was made from. Retrying the same change after a lost answer is harmless. The
changes of one call go to Redis in one write, and are independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from keepline.ops.redis.batches import Batches
from keepline.ops.redis.client import Client, is_cluster
from keepline.ops.redis.scripts import Call, Script, StoreUnavailable, Value, text, translated
from keepline.ops.redis.server_time import ServerTime
from keepline.room import keys
from keepline.room.codec import (
    BadRecord,
    Event,
    decode_record,
    encode_event,
    encode_message,
    encode_record,
    is_of_version,
)
from keepline.room.record import Message, Room, Status
from keepline.room.rules import MAX_MESSAGES
from keepline.room.steps import encode_step
from signal_node.bus.lanes import Channels
from signal_node.rooms.lookups import Lookups
from signal_node.rooms.reading import Reader
from signal_node.rooms.tombstones import LEFT_OVER_MS, wall_ms

MAX_STEPS = 100
"""Number of steps that a room's trace keeps; the oldest are dropped."""

TRACE_MS = 24 * 3_600 * 1_000
"""TTL of a room's trace after its last step. That of an ended room is deleted with its record."""

INDEX_SECONDS = 24 * 3600
"""TTL of the index of a user's rooms after the last room was opened."""


# Errors of a server that is temporarily unable to work. They do not concern the change itself.
_PASSING = (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

# Errors for which the library has no classes: a full disk, and a primary without its replicas.
_PASSING_WORDS = ("MISCONF", "NOREPLICAS")


@dataclass(frozen=True, slots=True)
class Change:
    """A transition to store: from `before` (None for a new room) to `after`, with its event, deadline and notices.

    `expected_version` must be in Redis now, 0 for none: mostly that of `before`. `due_at` is the room's next deadline
    in ms since 1970, None for none. `notices` go to the inboxes of nodes, by node. `not_after` is a time of the
    server's clock: the change is not made later than that.
    """

    kind: str
    expected_version: int
    before: Room | None
    after: Room
    message: Message | None
    due_at: int | None
    notices: Mapping[str, bytes]
    not_after: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The change is stored."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Redis has another version; None if it has no record."""

    current: Room | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Redis rejects this change permanently. The message says why."""

    why: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The room's server did not answer; the change may or may not be stored."""

    why: str


CommitResult = Committed | Conflict | Failed | Unavailable

Found = Room | None | BadRecord
"""A room as found in Redis: nothing, or a record, which may be unreadable."""


class RoomStore:
    """The rooms in one Redis."""

    def __init__(
        self,
        client: Client,
        partitions: int,
        tombstone_ms: int,
        batches: Batches | None = None,
        now: Callable[[], int] = wall_ms,
    ) -> None:
        """`now()` is the time in ms since 1970."""
        self.partitions = partitions
        self.reader = Reader()
        self._client = client
        self.lookups = Lookups(batches or Batches(client), self.reader, partitions)
        self._channels = Channels(client, partitions)
        self._tombstone_ms = tombstone_ms
        self._now = now
        self._commit = Script(client, __package__, "commit.lua")
        self._merge_chat = Script(client, __package__, "merge_chat.lua")
        self._server_time = ServerTime(client)
        self._pop_due = Script(client, __package__, "pop_due.lua")

    def partition_of(self, room_id: str) -> int:
        """The partition of a room."""
        return keys.partition_of(room_id, self.partitions)

    @property
    def lanes(self) -> int:
        """Number of lanes for commits, so that a slow server delays only its own rooms."""
        return self._channels.lanes

    def lane_of(self, room_id: str) -> int:
        """The lane of a room. One server may have several."""
        return self.partition_of(room_id) % self._channels.lanes

    async def load(self, room_id: str) -> tuple[Room | None, list[Message]]:
        """The room and its chat, oldest first, without unreadable messages; None if there is no room.

        Raises StoreUnavailable, also for a missing room while its partition is being recovered; BadRecord.
        """
        partition = self.partition_of(room_id)
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(keys.room(partition, room_id))
                pipe.xrange(keys.chat(partition, room_id))
                pipe.exists(keys.epoch(partition))
                record, lines, whole = await pipe.execute()
        if record is None and not whole:
            raise StoreUnavailable("this part of Redis is recovering")
        room = None if record is None else self.reader.record(room_id, record)
        if isinstance(room, BadRecord):
            raise room
        return room, self.reader.lines(room_id, lines)

    async def load_many(self, room_ids: Sequence[str]) -> list[Found]:
        """The rooms, without their chat; None for missing ones. Raises StoreUnavailable."""
        records = await self._records(room_ids)
        return [
            None if record is None else self.reader.record(room_id, record)
            for room_id, record in zip(room_ids, records, strict=True)
        ]

    async def compare(self, known: Sequence[Room]) -> list[Found]:
        """Like `load_many`, but does not decode rooms that still have the known version.

        Raises StoreUnavailable.
        """
        records = await self._records([room.room_id for room in known])
        return [_compared(self.reader, room, record) for room, record in zip(known, records, strict=True)]

    async def _records(self, room_ids: Sequence[str]) -> list[bytes | None]:
        if not room_ids:
            return []
        names = keys.rooms(room_ids, self.partitions)
        with translated():
            if not is_cluster(self._client):
                records: list[Any] = await self._client.mget(names)
                return records
            by_partition: dict[int, list[str]] = {}
            for room_id, name in zip(room_ids, names, strict=True):
                by_partition.setdefault(self.partition_of(room_id), []).append(name)
            async with self._client.pipeline(transaction=False) as pipe:
                for wanted in by_partition.values():
                    pipe.mget(wanted)
                answers = await pipe.execute()
        found = dict(zip(chain(*by_partition.values()), chain(*answers), strict=True))
        return [found[name] for name in names]

    async def lines_after(self, room_id: str, seq: int) -> list[Message]:
        """The room's chat after message `seq`. Raises StoreUnavailable."""
        with translated():
            lines: Any = await self._client.xrange(
                keys.chat(self.partition_of(room_id), room_id), min=f"({seq}-{2**63}"
            )
        return self.reader.lines(room_id, lines)

    async def rooms_of(self, user: str) -> list[Room]:
        """The user's live rooms, as far as the index knows. Removes others from the index.

        Skips unreadable rooms. Raises StoreUnavailable.
        """
        with translated():
            members = await self._client.smembers(keys.user_rooms(user))
        room_ids = sorted(text(member) for member in members)
        rooms = await self.load_many(room_ids)
        over = [
            room_id
            for room_id, room in zip(room_ids, rooms, strict=True)
            if room is None or (isinstance(room, Room) and room.status is Status.ENDED)
        ]
        if over:
            with translated():
                await self._client.srem(keys.user_rooms(user), *over)
        return [room for room in rooms if isinstance(room, Room) and room.status is not Status.ENDED]

    async def pop_due(self, by: Sequence[int], leased_until: int, at_most: int) -> list[str]:
        """Pop rooms whose deadline passed by `by[partition]`, in ms since 1970, at most that many per partition.

        They become due again at `leased_until`, unless a commit moves the deadline. Skips unreachable partitions.
        Raises StoreUnavailable if none can be reached.
        """
        answers = await self._pop_due.run_many(
            [
                ([keys.deadlines(partition)], [passed, leased_until, at_most])
                for partition, passed in enumerate(by)
            ]
        )
        errors = [answer for answer in answers if isinstance(answer, RedisError)]
        if errors and len(errors) == len(answers):
            raise StoreUnavailable(str(errors[0]))
        return [
            text(room_id) for answer in answers if not isinstance(answer, RedisError) for room_id in answer
        ]

    async def clear_deadline(self, room_id: str) -> None:
        """Delete the deadline of a missing room. Raises StoreUnavailable."""
        with translated():
            await self._client.zrem(keys.deadlines(self.partition_of(room_id)), room_id)

    async def add_deadline(self, room_id: str, at: int) -> None:
        """Set the deadline of a room, in ms since 1970, if it has none. Raises StoreUnavailable."""
        with translated():
            await self._client.zadd(keys.deadlines(self.partition_of(room_id)), {room_id: at}, nx=True)

    async def merge_chat(self, room_id: str, messages: Sequence[Message]) -> int:
        """Insert messages at their places in a room's chat, keeping existing ones. Returns the number inserted.

        Raises StoreUnavailable.
        """
        return await self.merge_chats({room_id: messages})

    async def merge_chats(self, chats: Mapping[str, Sequence[Message]]) -> int:
        """Do that with the chats of many rooms in one write. Raises StoreUnavailable."""
        calls = [self._merging(room_id, messages) for room_id, messages in chats.items() if messages]
        if not calls:
            return 0
        added = 0
        for answer in await self._merge_chat.run_many(calls):
            if isinstance(answer, RedisError):
                raise StoreUnavailable(f"{type(answer).__name__}: {answer}")
            added += int(answer)
        return added

    def _merging(self, room_id: str, messages: Sequence[Message]) -> Call:
        arguments: list[Value] = [MAX_MESSAGES]
        for message in messages:
            arguments += [message.seq, encode_message(message)]
        partition = self.partition_of(room_id)
        return [keys.chat(partition, room_id), keys.room(partition, room_id)], arguments

    async def add_events(self, events: Sequence[Event]) -> None:
        """Send the persister an event that is not a transition. Raises StoreUnavailable."""
        if not events:
            return
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for event in events:
                    stream = keys.events(self.partition_of(event.room.room_id))
                    pipe.xadd(
                        stream, {"event": encode_event(event)}, maxlen=keys.MAX_EVENTS, approximate=True
                    )
                await pipe.execute()

    async def not_after(self, room_id: str, until: float) -> int:
        """The `not_after` of a change of a room that is to be made by `until`. Raises StoreUnavailable."""
        return await self._server_time.not_after(keys.room(self.partition_of(room_id), room_id), until)

    async def commit(self, changes: Sequence[Change]) -> list[CommitResult]:
        """Store changes of different rooms, with one result each. Raises StoreUnavailable; any may be stored then."""
        results = await self.commit_each(changes)
        for result in results:
            if isinstance(result, Unavailable):
                raise StoreUnavailable(result.why)
        return results

    async def commit_each(self, changes: Sequence[Change]) -> list[CommitResult]:
        """Store changes of different rooms, as far as possible now, with one result each.

        Raises StoreUnavailable if no server could be reached; any may be stored then.
        """
        calls = [self._arguments(change) for change in changes]
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for call in calls:
                    self._commit.add_to(pipe, call)
                for change in changes:
                    _index(pipe, change)
                answers = await pipe.execute(raise_on_error=False)
            answers = await self._commit.completed(calls, answers[: len(changes)])
        return [_result(answer) for answer in answers]

    def _arguments(self, change: Change) -> Call:
        room = change.after
        partition = self.partition_of(room.room_id)
        nodes_before = set() if change.before is None else _nodes(change.before)
        added, removed = sorted(_nodes(room)), sorted(nodes_before - _nodes(room))
        ended, expire_ms = room.status is Status.ENDED, self._tombstone_ms + LEFT_OVER_MS
        names = [
            keys.room(partition, room.room_id),
            keys.events(partition),
            keys.deadlines(partition),
            keys.chat(partition, room.room_id),
            keys.trace(partition, room.room_id),
            keys.ended(partition),
            *(keys.held(partition, node) for node in (*added, *removed)),
        ]
        arguments: list[Value] = [
            change.expected_version,
            room.room_id,
            encode_record(room),
            encode_event(Event(change.kind, room, change.message)),
            "" if change.due_at is None else change.due_at,
            "" if change.message is None else change.message.seq,
            "" if change.message is None else encode_message(change.message),
            MAX_MESSAGES,
            self._now() + self._tombstone_ms if ended else "",
            expire_ms,
            keys.MAX_EVENTS,
            len(added),
            self._channels.command,
            "" if change.message is not None else encode_step(change.kind, room),
            MAX_STEPS,
            expire_ms if ended else TRACE_MS,
            "" if change.not_after is None else change.not_after,
        ]
        for node, payload in change.notices.items():
            arguments += [self._channels.name(node, partition), payload]
        return names, arguments


def _nodes(room: Room) -> set[str]:
    return {side.node for side in room.sides if side.node is not None}


def _index(pipe: Pipeline, change: Change) -> None:
    """Update the index of the users' rooms. It is in other partitions, so it is not part of the atomic commit."""
    if change.expected_version == 0:
        for side in change.after.sides:
            pipe.sadd(keys.user_rooms(side.user), change.after.room_id)
            pipe.expire(keys.user_rooms(side.user), INDEX_SECONDS)
    elif change.after.status is Status.ENDED:
        for side in change.after.sides:
            pipe.srem(keys.user_rooms(side.user), change.after.room_id)


def _result(answer: Any) -> CommitResult:
    if answer == b"done":
        return Committed()
    if answer == b"late":
        return Unavailable("it came too late to be done")
    if answer is None:
        return Conflict(None)
    if isinstance(answer, bytes):
        try:
            return Conflict(decode_record(answer))
        except BadRecord as error:
            return Failed(f"the stored record is damaged: {error}")
    if isinstance(answer, _PASSING) or str(answer).startswith(_PASSING_WORDS):
        return Unavailable(f"{type(answer).__name__}: {answer}")
    return Failed(str(answer))


def _compared(reader: Reader, known: Room, record: bytes | None) -> Found:
    if record is None:
        return None
    if is_of_version(record, known.version):
        return known
    return reader.record(known.room_id, record)

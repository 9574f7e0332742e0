"""Rooms in Redis: read them, and commit changes by the one script that writes them.

What a caller may assume of `commit`: a change is stored whole (record, event, deadline, chat, `held`, notices) or
not at all; it is stored only on top of the version it was made from; trying the same change again after a lost
answer is harmless. Changes of one call go to Redis in one write; they are independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from keepline.ops.redis import Client
from keepline.room import keys
from keepline.room.codec import (
    BadRecord,
    Event,
    decode_message,
    decode_record,
    encode_event,
    encode_message,
    encode_record,
)
from keepline.room.record import Message, Room, Status
from keepline.room.rules import MAX_MESSAGES

MAX_EVENTS = 200_000
"""Events that a partition keeps while nobody consumes them, about; the oldest give way."""

INDEX_SECONDS = 24 * 3600
"""How long the index of a user's rooms lives after the last room was opened."""


# Answers of a server that will do its work again later, not words about the change itself.
_PASSING = (BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError, TryAgainError)


class StoreUnavailable(Exception):
    """Redis could not be asked; what was to be written may or may not be."""


@dataclass(frozen=True, slots=True)
class Change:
    """A transition to be stored: from `before` (None: the room is new) to `after`, with what belongs to it.

    `expected_version` must be in Redis now, 0 for none: mostly that of `before`. `due_at` is the room's next deadline
    in ms since 1970, None for none. `notices` go to the inboxes of nodes, by node.
    """

    kind: str
    expected_version: int
    before: Room | None
    after: Room
    message: Message | None
    due_at: int | None
    notices: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Committed:
    """The change is stored."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another version is there; None when there is no record at all."""

    current: Room | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Redis refused this change and will refuse it again; the text says why."""

    why: str


CommitResult = Committed | Conflict | Failed


class RoomStore:
    """Rooms in one Redis."""

    def __init__(self, client: Client, partitions: int, tombstone_ms: int) -> None:
        self._client = client
        self.partitions = partitions
        self._tombstone_ms = tombstone_ms
        self._script = files(__package__).joinpath("commit.lua").read_text()
        self._digest = sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def load(self, room_id: str) -> tuple[Room | None, list[Message]]:
        """The room and its chat, oldest first; None when there is none. Raises StoreUnavailable, BadRecord."""
        partition = keys.partition_of(room_id, self.partitions)
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(keys.room(partition, room_id))
                pipe.xrange(keys.chat(partition, room_id))
                record, lines = await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        room = None if record is None else decode_record(record)
        return room, [decode_message(fields[b"message"]) for _, fields in lines]

    async def load_many(self, room_ids: Sequence[str]) -> list[Room]:
        """Those of the rooms that are there, without their chat. Raises StoreUnavailable, BadRecord."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for room_id in room_ids:
                    pipe.get(keys.room(keys.partition_of(room_id, self.partitions), room_id))
                records = await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        return [decode_record(record) for record in records if record is not None]

    async def rooms_of(self, user: str) -> list[Room]:
        """The user's rooms that have not ended, as far as the index knows. Raises StoreUnavailable."""
        try:
            members = await self._client.smembers(keys.user_rooms(user))
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        rooms = await self.load_many(sorted(_text(member) for member in members))
        return [room for room in rooms if room.status is not Status.ENDED]

    async def due(self, now: int, at_most: int) -> list[str]:
        """Ids of rooms in which something is due at `now` (ms), at most so many of each partition."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for partition in range(self.partitions):
                    pipe.zrangebyscore(keys.deadlines(partition), 0, now, start=0, num=at_most)
                found = await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        return [room_id.decode() for partition in found for room_id in partition]

    async def forget_deadline(self, room_id: str) -> None:
        """Take away the deadline of a room that is gone. Raises StoreUnavailable."""
        partition = keys.partition_of(room_id, self.partitions)
        try:
            await self._client.zrem(keys.deadlines(partition), room_id)
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error

    async def commit(self, changes: Sequence[Change]) -> list[CommitResult]:
        """Store changes of different rooms; one result each. Raises StoreUnavailable: then any may be stored."""
        try:
            answers = await self._run(changes)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._client.script_load(self._script)
                answers = await self._run(changes)
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        return [_result(answer) for answer in answers]

    async def _run(self, changes: Sequence[Change]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for change in changes:
                names, arguments = self._arguments(change)
                pipe.evalsha(self._digest, len(names), *names, *arguments)
            for change in changes:
                _index(pipe, change)
            answers = await pipe.execute(raise_on_error=False)
        return answers[: len(changes)]

    def _arguments(self, change: Change) -> tuple[list[str], list[bytes | str | int]]:
        room = change.after
        partition = keys.partition_of(room.room_id, self.partitions)
        nodes_before = set() if change.before is None else _nodes(change.before)
        added, removed = sorted(_nodes(room)), sorted(nodes_before - _nodes(room))
        ended = room.status is Status.ENDED
        names = [
            keys.room(partition, room.room_id),
            keys.events(partition),
            keys.deadlines(partition),
            keys.chat(partition, room.room_id),
            *(keys.held(partition, node) for node in (*added, *removed)),
        ]
        arguments: list[bytes | str | int] = [
            change.expected_version,
            room.room_id,
            encode_record(room),
            encode_event(Event(change.kind, room, change.message)),
            "" if change.due_at is None else change.due_at,
            "" if change.message is None else change.message.seq,
            "" if change.message is None else encode_message(change.message),
            MAX_MESSAGES,
            self._tombstone_ms if ended else "",
            MAX_EVENTS,
            len(added),
            "PUBLISH",
        ]
        for node, payload in change.notices.items():
            arguments += [keys.inbox(node), payload]
        return names, arguments


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _nodes(room: Room) -> set[str]:
    return {side.node for side in room.sides if side.node is not None}


def _index(pipe: Pipeline, change: Change) -> None:
    """Keep the index of the users' rooms. It lives in other partitions, so it is not part of the atomic step."""
    if change.before is None:
        for side in change.after.sides:
            pipe.sadd(keys.user_rooms(side.user), change.after.room_id)
            pipe.expire(keys.user_rooms(side.user), INDEX_SECONDS)
    elif change.after.status is Status.ENDED:
        for side in change.after.sides:
            pipe.srem(keys.user_rooms(side.user), change.after.room_id)


def _result(answer: Any) -> CommitResult:
    if answer == b"done":
        return Committed()
    if answer is None:
        return Conflict(None)
    if isinstance(answer, bytes):
        try:
            return Conflict(decode_record(answer))
        except BadRecord as error:
            return Failed(f"the record that is there cannot be read: {error}")
    if isinstance(answer, _PASSING):
        raise StoreUnavailable(str(answer))
    return Failed(str(answer))

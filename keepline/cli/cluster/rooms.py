"""`keepline rooms`: the rooms in Redis, filtered, and one room as stored in each place, side by side."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from redis.exceptions import RedisError

from keepline.cli.cluster.access import NodeSilent, Reach
from keepline.ops import postgres, redis
from keepline.ops.postgres import Pool
from keepline.ops.redis.cluster_time import cluster_ms
from keepline.room import keys
from keepline.room.codec import BadRecord, decode_record, record_to_dict
from keepline.room.record import Room, Status

PAGE = 500
"""Number of keys per SCAN, and of records read at once."""

_ROW = "SELECT * FROM active_rooms WHERE room_id = $1::uuid"


@dataclass(frozen=True, slots=True)
class Filter:
    """The wanted rooms; None for any. Ended ones only by `status`. `older_than` is in seconds since the start."""

    status: str | None = None
    mode: str | None = None
    user: str | None = None
    node: str | None = None
    older_than: float | None = None

    def admits(self, room: Room, now: int) -> bool:
        """Whether a room matches at `now`, in ms since 1970."""
        if self.status is None:
            if room.status is Status.ENDED:
                return False
        elif room.status.value != self.status:
            return False
        return (
            self.mode in (None, room.chat_mode.value)
            and (self.user is None or room.side_of(self.user) is not None)
            and (self.node is None or any(side.node == self.node for side in room.sides))
            and (self.older_than is None or now - room.started_at >= self.older_than * 1_000)
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """The rooms that changed last, newest first, the number of matching rooms, and unreadable records.

    `now` is the cluster's time, in ms since 1970.
    """

    rooms: list[Room]
    total: int
    unreadable: int
    now: int


async def list_rooms(reach: Reach, wanted: Filter, limit: int, on_progress: Callable[[int], None]) -> Listing:
    """Scan every room in Redis. `on_progress` gets the number of scanned rooms. Raises RedisError, OSError."""
    newest: list[tuple[int, str, Room]] = []
    now, seen, total, unreadable = await cluster_ms(reach.redis), 0, 0, 0
    async for records in records_of(reach):
        for _, record in records:
            try:
                room = decode_record(record)
            except BadRecord:
                unreadable += 1
                continue
            if wanted.admits(room, now):
                total += 1
                entry = (room.updated_at, room.room_id, room)
                if len(newest) < limit:
                    heapq.heappush(newest, entry)
                else:
                    heapq.heappushpop(newest, entry)
        seen += len(records)
        on_progress(seen)
    return Listing([room for _, _, room in sorted(newest, reverse=True)], total, unreadable, now)


async def records_of(reach: Reach) -> AsyncIterator[list[tuple[str, bytes]]]:
    """All rooms in Redis, as pages of id and record. Raises RedisError, OSError."""
    for server in await redis.servers(reach.redis):
        async for names in pages(server, keys.all_rooms()):
            records = await reach.pipelined([("GET", name) for name in names])
            ids = [name.rpartition(b":")[2].decode() for name in names]
            yield [(room_id, raw) for room_id, raw in zip(ids, records, strict=True) if raw is not None]


async def pages(server: redis.Client, pattern: str) -> AsyncIterator[list[bytes]]:
    """The keys of one server that match a pattern, each once. Raises RedisError, OSError."""
    cursor: Any = 0
    names: Any
    seen: set[bytes] = set()
    while True:
        cursor, names = await server.scan(cursor, match=pattern, count=PAGE)
        fresh = [name for name in names if name not in seen]  # SCAN may return a key twice
        seen.update(fresh)
        if fresh:
            yield fresh
        if cursor == 0:
            return


@dataclass(frozen=True, slots=True)
class RoomView:
    """A room as one place has it; None if it does not have it. `problem` is why that is unknown.

    `extra` is what only that place knows: in Redis the deadline, on a node the sides with an open connection.
    """

    place: str
    fields: Mapping[str, Any] | None
    problem: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


async def views_of(reach: Reach, room_id: str) -> list[RoomView]:
    """One room as Redis, Postgres and each node have it, with a problem for each place that does not answer."""
    views = [await _in_redis(reach, room_id)]
    if reach.pool is not None:
        views.append(await _in_postgres(reach.pool, room_id))
    try:
        nodes = [node for node in await reach.nodes() if node.beat is not None]
    except (RedisError, OSError):
        return views
    answers = await reach.ask_all(nodes, f"/v1/node/rooms/{room_id}")
    return views + [_in_cache(node.name, answers[node.name]) for node in nodes]


async def _in_redis(reach: Reach, room_id: str) -> RoomView:
    try:
        partition = keys.partition_of(room_id, len(await reach.partitions()))
        record, due = await reach.pipelined(
            [("GET", keys.room(partition, room_id)), ("ZSCORE", keys.deadlines(partition), room_id)]
        )
        fields = None if record is None else record_to_dict(decode_record(record))
    except (RedisError, OSError, BadRecord) as error:
        return RoomView("Redis", None, str(error) or type(error).__name__)
    return RoomView("Redis", fields, extra={"due_at": None if due is None else round(float(due))})


async def _in_postgres(pool: Pool, room_id: str) -> RoomView:
    try:
        row = await pool.fetchrow(_ROW, room_id)
    except postgres.ERRORS as error:
        return RoomView("Postgres", None, f"cannot be asked: {pool.in_words(error)}")
    return RoomView("Postgres", None if row is None else fields_of_row(dict(row)))


def fields_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of active_rooms with the names and types of the record."""
    fields = {name: row[name] for name in COMPARED if name in row}
    for name, value in fields.items():
        if isinstance(value, datetime):
            fields[name] = round(value.timestamp() * 1_000)
        elif isinstance(value, UUID):
            fields[name] = str(value)
    fields["last_seq"] = max((message["seq"] for message in row["messages"]), default=0)
    return fields


def _in_cache(name: str, answer: Any) -> RoomView:
    if isinstance(answer, NodeSilent):
        return RoomView(name, None, str(answer))
    return RoomView(name, answer["room"], extra={"settled": answer["settled"], "here": answer["here"]})


def differences(views: list[RoomView]) -> list[str]:
    """The fields that differ between places that have the room. Postgres may have less of the chat, and be behind."""
    held = [view.fields for view in views if view.fields is not None]
    return [name for name in COMPARED if len({orjson.dumps(fields[name]) for fields in held}) > 1]


COMPARED = (
    "version",
    "status",
    "chat_mode",
    "user_1",
    "user_2",
    "user_1_connected",
    "user_2_connected",
    "duration_seconds",
    "started_at",
    "grace_period_expires",
    "last_seq",
    "ended_reason",
    "ended_at",
)
"""The fields that every place has, by their names in the record."""

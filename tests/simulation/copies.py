"""Where what was promised of a room can be found: Redis, Postgres and the memory of living nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keepline.room import keys
from keepline.room.codec import Event, decode_event
from keepline.room.record import Status
from tests.simulation.knowledge import Copies
from tests.simulation.values import Stream

if TYPE_CHECKING:
    from tests.simulation.world import World


def copies_of(world: World, room_id: str) -> Copies:
    """What there is of a room now."""
    events = list(_events(world, room_id))
    record = world.record(room_id)
    remembered = [room for node in world.nodes if (room := node.remembered(room_id)) is not None]
    known = [*remembered, *(event.room for event in events), *([] if record is None else [record])]
    lines = world.lines(room_id)
    for node in world.nodes:
        lines |= node.lines(room_id)
    in_postgres: dict[int, str] = {
        event.message.seq: event.message.text for event in events if event.message is not None
    }
    copies = Copies(found=bool(known), ended=any(room.status is Status.ENDED for room in known))
    row = world.postgres.rows.get(room_id)
    if row is not None:
        in_postgres |= {seq: line["text"] for seq, line in row.messages.items()}
        copies.found = True
        copies.ended |= row.room.status == "ended"
        newest = max(
            (room.version for room in [*remembered, *([] if record is None else [record])]), default=0
        )
        copies.behind = _whole(world, room_id) and newest < row.room.version
    if _whole(world, room_id):
        copies.in_postgres_only = set(in_postgres) - set(lines)
    copies.lines = {**lines, **in_postgres}
    return copies


def _events(world: World, room_id: str) -> Iterator[Event]:
    """What is on its way to Postgres."""
    partition = keys.partition_of(room_id, world.shape.partitions)
    stream = world.redis.server.value(keys.events(partition).encode())
    if isinstance(stream, Stream):
        for _, fields in stream.entries:
            event = decode_event(fields[b"event"])
            if event.room.room_id == room_id:
                yield event


def _whole(world: World, room_id: str) -> bool:
    """Whether Redis passes for having all of the room's partition: then nobody fills in from Postgres."""
    partition = keys.partition_of(room_id, world.shape.partitions)
    return world.redis.server.value(keys.epoch(partition).encode()) is not None

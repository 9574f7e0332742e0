"""The ids of writes: by them a change whose answer was lost is found again in the record, and not made twice.

An id is `node:process:count`. What stands before the count names the writer, one process of a node; it has one write of
a room under way at a time. So the last write of each writer is enough to tell whether one was stored, however many
others came after it. A record names the write that made it, and before that the last ones of the last few writers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from msgspec.structs import replace

from keepline.room.record import Room

MAX_WRITERS = 8
"""Writers whose last write a record names: a room has the nodes of its two sides, and now and then another."""


def write_ids(node: str, process: str) -> Callable[[], str]:
    """A source of ids that are unique in the cluster; `process` tells the lives of a node apart."""
    count = itertools.count(1)
    return lambda: f"{node}:{process}:{next(count)}"


def node_of(write_id: str) -> str:
    """The node that made a write."""
    return write_id.partition(":")[0]


def _writer_of(write_id: str) -> str:
    return write_id.rpartition(":")[0] or write_id


def written(before: Room | None, after: Room, write_id: str) -> Room:
    """The record that a write makes of another one."""
    if before is None or not before.write_id:
        return replace(after, write_id=write_id)
    writer = _writer_of(write_id)
    earlier = tuple(each for each in (*before.earlier_writes, before.write_id) if _writer_of(each) != writer)
    return replace(after, write_id=write_id, earlier_writes=earlier[1 - MAX_WRITERS :])


def has_write(room: Room, write_id: str) -> bool:
    """Whether a write was stored that led to the record, as far as it names them."""
    return room.write_id == write_id or write_id in room.earlier_writes

"""Ids of writes. They identify a change whose answer was lost, so that it is not applied twice.

An id is `node:process:count`. The part before the count identifies the writer: one process of a node. A writer has only
one write of a room in progress, so its last write is enough to tell whether a change was stored, no matter how many
others followed. A record has the id of the write that made it, and the last ids of the last few other writers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from msgspec.structs import replace

from keepline.room.record import Room

MAX_WRITERS = 8
"""Number of writers whose last write a record keeps. A room is written by the nodes of its two sides, and occasionally
others.
"""


def write_ids(node: str, process: str) -> Callable[[], str]:
    """A source of ids that are unique in the cluster. `process` distinguishes restarts of a node."""
    count = itertools.count(1)
    return lambda: f"{node}:{process}:{next(count)}"


def node_of(write_id: str) -> str:
    """The node that made a write."""
    return write_id.partition(":")[0]


def _writer_of(write_id: str) -> str:
    return write_id.rpartition(":")[0] or write_id


def written(before: Room | None, after: Room, write_id: str) -> Room:
    """The record that a write stores on top of another one."""
    if before is None or not before.write_id:
        return replace(after, write_id=write_id)
    writer = _writer_of(write_id)
    earlier = tuple(each for each in (*before.earlier_writes, before.write_id) if _writer_of(each) != writer)
    return replace(after, write_id=write_id, earlier_writes=earlier[1 - MAX_WRITERS :])


def has_write(room: Room, write_id: str) -> bool:
    """Whether the record includes the write, as far as its ids show."""
    return room.write_id == write_id or write_id in room.earlier_writes

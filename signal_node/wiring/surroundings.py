"""The external dependencies of a node at startup."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from keepline.ops import redis
from keepline.ops.redis.batches import Batches
from keepline.ops.settings import NodeSettings
from signal_node.cluster.clock import Clock
from signal_node.rooms.archive import Archive


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The dependencies of the parts of a node. `draining()` is whether the node is about to stop."""

    settings: NodeSettings
    loop: asyncio.AbstractEventLoop
    client: redis.Client
    partitions: int
    batches: Batches
    archive: Archive | None
    clock: Clock
    draining: Callable[[], bool]
    new_write_id: Callable[[], str]

    @property
    def node(self) -> str:
        """This node's name."""
        return self.settings.node_id

    @property
    def cold_start_grace_ms(self) -> int:
        """The grace period, in ms, of sides that were lost with the whole cluster."""
        return round(self.settings.cold_start_grace_seconds * 1_000)

    @property
    def tombstone_ms(self) -> int:
        """How long ended rooms are kept, in ms."""
        return round(self.settings.tombstone_seconds * 1_000)

"""Recovery after Redis has lost data."""

from __future__ import annotations

from signal_node.cluster.epochs import Epochs
from signal_node.cluster.recovery import Recovery
from signal_node.cluster.revival import Revival
from signal_node.users.ownership import Users
from signal_node.wiring.cluster import ClusterParts
from signal_node.wiring.limits import LimitParts
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.surroundings import Surroundings


def recovery_of(
    around: Surroundings, rooms: RoomParts, cluster: ClusterParts, limits: LimitParts, users: Users
) -> Recovery:
    """The recovery of rooms, users and limits."""
    revival = Revival(
        rooms.store,
        rooms.rules,
        grace_ms=around.cold_start_grace_ms,
        now=around.clock.now,
        new_write_id=around.new_write_id,
    )
    return Recovery(
        around.node,
        rooms.cache,
        rooms.reconciler,
        rooms.store,
        users,
        Epochs(around.client, around.partitions),
        cluster.registry,
        around.archive,
        limits.addresses,
        revival,
        tombstone_ms=around.tombstone_ms,
        live=cluster.view.recently_live,
        clock_changes=lambda: cluster.heartbeat.clock_changes,
    )

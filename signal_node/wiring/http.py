"""The dependencies of the HTTP API."""

from __future__ import annotations

from signal_node.cluster.recovery import Recovery
from signal_node.http.referrals import Referrals
from signal_node.http.repairs import Repairs
from signal_node.users.ownership import Users
from signal_node.wiring.cluster import ClusterParts
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.surroundings import Surroundings

_DAY_SECONDS = 86_400.0


def referrals_of(around: Surroundings) -> Referrals:
    """The referrals, in Redis and in Postgres."""
    return Referrals(
        around.client,
        around.partitions,
        around.archive,
        keep_seconds=around.settings.keep_referrals_days * _DAY_SECONDS,
        now=around.clock.now,
    )


def repairs_of(
    around: Surroundings, rooms: RoomParts, cluster: ClusterParts, users: Users, recovery: Recovery
) -> Repairs:
    """The repairs of `keepline doctor --fix`."""
    return Repairs(
        around.node,
        rooms.sessions,
        rooms.cache,
        rooms.store,
        rooms.commands,
        users,
        cluster.registry,
        rooms.reconciler,
        recovery,
        rooms.rules,
    )

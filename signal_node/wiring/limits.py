"""The limits per IP address."""

from __future__ import annotations

from signal_node.limits.address_limits import AddressLimits
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.refusals import Refusals
from signal_node.transport.connections import Connections
from signal_node.wiring.cluster import ClusterParts
from signal_node.wiring.settings import rates_of, sockets_of
from signal_node.wiring.surroundings import Surroundings


class LimitParts:
    """Failed logins and open connections, counted over all nodes, and the refusals because of them."""

    def __init__(self, around: Surroundings, clients: Connections, cluster: ClusterParts) -> None:
        settings, now = around.settings, around.clock.now
        self.failed_logins = FailedLogins(
            around.client,
            around.partitions,
            settings.limit_failed_logins,
            round(settings.limit_failed_login_window_seconds * 1_000),
            now,
            around.batches,
        )
        self.refusals = Refusals(clients)
        self.open_connections = OpenConnections(
            around.client,
            around.partitions,
            cluster.heartbeat.process,
            settings.limit_connections_per_ip,
            others=cluster.view.other_processes,
            now=now,
            refuse=self.refusals.session_too_many,
        )
        self.sockets = sockets_of(settings)
        self.addresses = AddressLimits(
            self.refusals,
            self.open_connections,
            self.failed_logins,
            settings.trusted_proxies,
            self.sockets,
            rates_of(settings, clients),
        )

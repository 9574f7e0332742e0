"""Refuses connections and logins from an address that has reached a limit."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from signal_node.limits.addresses import address_hash
from signal_node.limits.rates import Recent
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections

RETRY_AFTER_MS = 2_000
"""When a connection that exceeds the limit may retry.

It is impossible to know when another connection will close. The time is much shorter than a call's grace period: after
a node dies, its connections still count for some seconds, in addition to those that replace them.
"""

LOG_SECONDS = 60.0
"""Minimum interval between log lines about the same address."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LimitCounts:
    """How often each limit was hit."""

    connections: int = 0
    logins: int = 0
    login_rate: int = 0


@dataclass(slots=True)
class _Logged:
    at: float = float("-inf")


class Refusals:
    """Tells clients which limit they exceed and when to retry, and counts and logs it."""

    def __init__(self, clients: Connections) -> None:
        self.counts = LimitCounts()
        self._clients = clients
        self._logged = Recent(_Logged)

    def session_too_many(self, session: str) -> None:
        """Close a connection: its address has too many over all nodes."""
        connection = self._clients.get(session)
        if connection is not None:
            self.too_many_connections(connection)

    def too_many_connections(self, connection: Connection) -> None:
        """Close a connection that exceeds the limit of its address."""
        self.counts.connections += 1
        self._refuse(connection, "connections", "too many connections from this address", RETRY_AFTER_MS)

    def too_many_failures(self, connection: Connection, wait_ms: int) -> None:
        """Refuse a login from a blocked address."""
        self.counts.logins += 1
        self._refuse(connection, "failed_logins", "too many failed logins from this address", wait_ms)

    def too_many_logins(self, connection: Connection, wait_ms: int) -> None:
        """Refuse a login with a valid token."""
        self.counts.login_rate += 1
        self._refuse(connection, "login_rate", "too many logins of this user or from this address", wait_ms)

    def _refuse(self, connection: Connection, limit: str, why: str, retry_after_ms: int) -> None:
        self._log(connection, limit)
        connection.perform(connection.session.limited(why, retry_after_ms))

    def _log(self, connection: Connection, limit: str) -> None:
        """Log the address that exceeds a limit, at intervals, as a hash that can be compared with a known address."""
        address, now = connection.address or "", connection.heard_at
        if now >= self._logged.of(address).at + LOG_SECONDS:
            self._logged.of(address).at = now
            _log.warning("address_over_limit", limit=limit, address_hash=address_hash(address))

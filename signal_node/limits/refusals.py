"""Refusing connections and logins of an address that has had its share."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from signal_node.limits.addresses import address_hash
from signal_node.limits.rates import Recent
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections

RETRY_AFTER_MS = 2_000
"""When a connection too many may try again.

Nobody knows when another one closes. It is much less than the grace of a call: for some seconds after the death of a
node its connections count beside those that come in their place.
"""

LOG_SECONDS = 60.0
"""How often the log is told of an address."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LimitCounts:
    """How often a limit was hit."""

    connections: int = 0
    logins: int = 0
    login_rate: int = 0


@dataclass(slots=True)
class _Logged:
    at: float = float("-inf")


class Refusals:
    """Tells clients which limit they are over and when to come again, and counts and logs it."""

    def __init__(self, clients: Connections) -> None:
        self.counts = LimitCounts()
        self._clients = clients
        self._logged = Recent(_Logged)

    def session_too_many(self, session: str) -> None:
        """Close a connection: the nodes together have too many of its address."""
        connection = self._clients.get(session)
        if connection is not None:
            self.too_many_connections(connection)

    def too_many_connections(self, connection: Connection) -> None:
        """Close a connection that its address has too many of."""
        self.counts.connections += 1
        self._refuse(connection, "connections", "too many connections from this address", RETRY_AFTER_MS)

    def too_many_failures(self, connection: Connection, wait_ms: int) -> None:
        """Refuse a login from an address that is blocked."""
        self.counts.logins += 1
        self._refuse(connection, "failed_logins", "too many failed logins from this address", wait_ms)

    def too_many_logins(self, connection: Connection, wait_ms: int) -> None:
        """Refuse a login with a good token."""
        self.counts.login_rate += 1
        self._refuse(connection, "login_rate", "too many logins of this user or from this address", wait_ms)

    def _refuse(self, connection: Connection, limit: str, why: str, retry_after_ms: int) -> None:
        self._log(connection, limit)
        connection.perform(connection.session.limited(why, retry_after_ms))

    def _log(self, connection: Connection, limit: str) -> None:
        """Say now and then which address is over a limit, by a hash: who knows the address knows it."""
        address, now = connection.address or "", connection.heard_at
        if now >= self._logged.of(address).at + LOG_SECONDS:
            self._logged.of(address).at = now
            _log.warning("address_over_limit", limit=limit, address_hash=address_hash(address))

"""What one IP address may do, over all nodes: have so many connections open, fail so many logins within a window.

Nothing here is on the path of a signal, and no socket waits for Redis: a hello does, for one answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from keepline.ops.settings import Network
from signal_node.limits.addresses import address_hash, client_address, is_trusted
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.rates import Rates, Recent
from signal_node.limits.refusal_log import RefusalLog
from signal_node.limits.sockets import Sockets
from signal_node.transport.budget import COSTS
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections

RETRY_AFTER_MS = 2_000
"""When a connection too many may try again.

Nobody knows when another one closes. It is much less than the grace of a call: for some seconds after the death of a
node its connections count beside those that come in their place.
"""

TOLD_SECONDS = 60.0
"""A load balancer that writes headers nobody understands does so with every connection; this often it is told of."""

TOO_MANY_CONNECTIONS = "too many connections from this address"
TOO_MANY_LOGINS = "too many logins of this user or from this address"
TOO_MANY_FAILURES = "too many failed logins from this address"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LimitCounts:
    """How often a limit was hit."""

    connections: int = 0
    logins: int = 0
    login_rate: int = 0


@dataclass(slots=True)
class _Told:
    """When the log was last told of an address."""

    at: float = float("-inf")


class AddressLimits:
    """Refuses connections and logins of addresses that have had their share."""

    def __init__(
        self,
        clients: Connections,
        logins: FailedLogins,
        trusted_proxies: Sequence[Network],
        sockets: Sockets,
        rates: Rates,
    ) -> None:
        self.counts = LimitCounts()
        self.log = RefusalLog()
        self.logins = logins
        self.sockets = sockets
        self.rates = rates
        self.connections: OpenConnections
        self._clients = clients
        self._trusted_proxies = trusted_proxies
        self._tell_at = 0.0
        self._told = Recent(_Told)

    def trusts(self, connection: Connection) -> bool:
        """Whether the other end of the socket may say whom it speaks for."""
        return is_trusted(connection.peer_host, self._trusted_proxies)

    def misled(self, connection: Connection, why: str) -> None:
        """A proxy that is trusted has begun with a PROXY header that cannot be read."""
        if connection.heard_at >= self._tell_at:
            self._tell_at = connection.heard_at + TOLD_SECONDS
            _log.warning("proxy_header_unreadable", proxy=connection.peer_host, error=why)

    def opened(self, connection: Connection) -> None:
        """Count a connection whose handshake is done, or close it."""
        host = connection.websocket.source or connection.peer_host
        address = client_address(host, connection.forwarded_for, self._trusted_proxies)
        connection.address = address
        if address is not None:
            connection.budget.belongs_to(self.rates.budget_of(address))
            connection.spend(COSTS.handshake)
        if address is not None and not self.connections.opened(address, connection.session.id):
            self._refuse(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.sockets.gone(connection.socket_host)
        if connection.address is not None:
            self.connections.closed(connection.address, connection.session.id)

    def refuse(self, session: str) -> None:
        """Close a connection: the nodes together have too many of its address."""
        connection = self._clients.get(session)
        if connection is not None:
            self._refuse(connection)

    def _tell(self, connection: Connection, limit: str) -> None:
        """Say in the log, now and then, which address is over a limit, by a hash: who knows the address knows it."""
        address, now = connection.address or "", connection.heard_at
        if now >= self._told.of(address).at + TOLD_SECONDS:
            self._told.of(address).at = now
            _log.warning("address_over_limit", limit=limit, address_hash=address_hash(address))

    def _refuse(self, connection: Connection) -> None:
        self.counts.connections += 1
        self._tell(connection, "connections")
        connection.perform(connection.session.limited(TOO_MANY_CONNECTIONS, RETRY_AFTER_MS))

    async def admit(self, connection: Connection, is_known: Callable[[], Awaitable[bool]]) -> None:
        """Let a hello have its token looked at, or refuse it: then the session is closed.

        From an address that is blocked only those come in who show that they have been here: one who guesses tokens
        must not lock out a whole office, nor learn from the answer which guess was right.
        """
        address = connection.address
        if address is None:
            return
        await self.connections.answered(address, connection.session.id)
        wait_ms = 0 if connection.session.closed() else await self.logins.wait_ms(address)
        if wait_ms and not await is_known():
            self.counts.logins += 1
            self._tell(connection, "failed_logins")
            connection.perform(connection.session.limited(TOO_MANY_FAILURES, wait_ms))

    def admit_user(self, connection: Connection, user: str) -> None:
        """Let a client in whose token is good, or refuse it: then the session is closed."""
        wait_ms = self.rates.login_wait_ms(user, connection.address, connection.heard_at)
        if wait_ms:
            self.counts.login_rate += 1
            self._tell(connection, "login_rate")
            connection.perform(connection.session.limited(TOO_MANY_LOGINS, wait_ms))
        else:
            connection.session.use(self.rates.frames_of(user))

    async def login_failed(self, connection: Connection) -> None:
        """Count a token that was not good."""
        if connection.address is not None:
            await self.logins.failed(connection.address, connection.session.id)

    async def put_back(self) -> None:
        """Write again what Redis may have lost. Raises StoreUnavailable."""
        self.connections.put_back()
        await self.logins.put_back()

"""Limits per IP address across all nodes: open connections, and failed logins within a window.

Nothing here is on the path of a signal, and no socket waits for Redis. A hello does, for one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from keepline.ops.setting_values import Network
from signal_node.limits.addresses import client_address, is_trusted, networks_of
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.rates import Rates
from signal_node.limits.refusal_log import RefusalLog
from signal_node.limits.refusals import Refusals
from signal_node.limits.sockets import Sockets
from signal_node.transport.budget import COSTS
from signal_node.transport.connection import Connection

TOLD_SECONDS = 60.0
"""How often to log a load balancer whose PROXY headers are malformed, which it sends with every connection."""

_log = structlog.get_logger(__name__)


class AddressLimits:
    """Refuses connections and logins of addresses that have reached a limit."""

    def __init__(
        self,
        refusals: Refusals,
        connections: OpenConnections,
        logins: FailedLogins,
        trusted_proxies: Sequence[Network],
        sockets: Sockets,
        rates: Rates,
    ) -> None:
        self.refusals = refusals
        self.log = RefusalLog()
        self.logins = logins
        self.sockets = sockets
        self.rates = rates
        self.connections = connections
        self._trusted_proxies = trusted_proxies
        self._tell_at = 0.0

    def trusts(self, connection: Connection) -> bool:
        """Whether the socket's address is a trusted proxy, which may report the client's address."""
        return is_trusted(connection.peer_host, self._trusted_proxies)

    def misled(self, connection: Connection, why: str) -> None:
        """A trusted proxy sent a malformed PROXY header."""
        if connection.heard_at >= self._tell_at:
            self._tell_at = connection.heard_at + TOLD_SECONDS
            _log.warning("proxy_header_unreadable", proxy=connection.peer_host, error=why)

    def opened(self, connection: Connection) -> None:
        """Count a connection whose handshake is done, or close it."""
        host = connection.websocket.source or connection.peer_host
        address = client_address(host, connection.forwarded_for, self._trusted_proxies)
        connection.address = address
        if address is not None:
            connection.reading.budget.belongs_to(self.rates.budget_of(address))
            connection.reading.spend(COSTS.handshake)
        opened = [self.connections.opened(network, connection.session.id) for network in networks_of(address)]
        if not all(opened):
            self.refusals.too_many_connections(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.sockets.gone(connection.socket_host)
        for network in networks_of(connection.address):
            self.connections.closed(network, connection.session.id)

    async def admit(self, connection: Connection, is_known: Callable[[], Awaitable[bool]]) -> None:
        """Let a hello's token be checked, or refuse the hello, which closes the session.

        From a blocked address only returning clients are let in: someone who guesses tokens must neither lock out a
        whole office nor learn from the answer which guess was right.
        """
        networks = networks_of(connection.address)
        for network in networks:
            await self.connections.answered(network, connection.session.id)
        if not networks or connection.session.closed():
            return
        wait_ms = max(await asyncio.gather(*map(self.logins.wait_ms, networks)))
        if wait_ms and not await is_known():
            self.refusals.too_many_failures(connection, wait_ms)

    def admit_user(self, connection: Connection, user: str) -> None:
        """Let a client with a valid token in, or refuse it, which closes the session."""
        wait_ms = self.rates.login_wait_ms(user, connection.address, connection.heard_at)
        if wait_ms:
            self.refusals.too_many_logins(connection, wait_ms)
        else:
            connection.session.use(self.rates.frames_of(user))

    async def login_failed(self, connection: Connection) -> None:
        """Count an invalid token."""
        attempt = connection.session.id
        await asyncio.gather(*(self.logins.failed(one, attempt) for one in networks_of(connection.address)))

    async def put_back(self) -> None:
        """Write back what Redis may have lost. Raises StoreUnavailable."""
        self.connections.put_back()
        await self.logins.put_back()

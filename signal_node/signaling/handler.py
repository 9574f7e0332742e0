"""What happens when a client's connection opens, makes a request or closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from keepline.room import commands
from keepline.room.record import SideNumber
from signal_node.limits.address_limits import AddressLimits
from signal_node.protocol import close_codes
from signal_node.signaling.relay import SignalRelay
from signal_node.signaling.requests import Requests
from signal_node.signaling.room_commands import RoomCommands
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections

TAKEOVER_SECONDS = 2.0
"""How long a connection that took over a user has to take its sides, before the old one's count as lost."""

_log = structlog.get_logger(__name__)


class ConnectionHandler:
    """The handler of all connections (`transport.connection.Handler`)."""

    def __init__(
        self,
        clients: Connections,
        relay: SignalRelay,
        requests: Requests,
        room_commands: RoomCommands,
        limits: AddressLimits,
        negotiation_log: NegotiationLog,
        draining: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """While `draining()`, new clients are sent to other nodes."""
        # On the path of every signal and request: avoid a call in between.
        self.relay = relay.relay
        self.perform = requests.begin
        self.draining = draining
        self.trusts = limits.trusts
        self.misled = limits.misled
        self._clients = clients
        self._requests = requests
        self._room_commands = room_commands
        self._limits = limits
        self._negotiation_log = negotiation_log
        self._loop = loop

    def accept(self, host: str | None = None) -> Connection:
        """The protocol of a connection from an IP address."""
        return self._clients.accept(self, host)

    def refused(self, connection: Connection, status: int, why: str) -> None:
        """A handshake was refused. Not logged while draining, when all are refused."""
        if not self.draining():
            self._limits.log.handshake_refused(connection.peer_host, status, why)

    def origin_refused(self, connection: Connection, origin: str) -> None:
        """The page's origin is not allowed."""
        self._limits.log.origin_refused(connection.address, origin)

    def opened(self, connection: Connection) -> None:
        """A client has completed the handshake."""
        self._clients.opened(connection)
        self._limits.opened(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone: its sides are lost, at once or after its successor has had time to take them."""
        session = connection.session
        self._clients.closed(connection)
        if session.user:
            _log.info("session_closed", session=session.id, end=connection.websocket.ended_by)
        self._limits.closed(connection)
        self._requests.gone(connection)
        if not session.rooms.held:
            return
        held = dict(session.rooms.held)
        how = "lost" if connection.closed_as is None else f"closed {connection.closed_as.code}"
        for room_id, side in held.items():
            self._negotiation_log.note(room_id, side, session.id, how, self._loop.time())
        if connection.closed_as is close_codes.REPLACED:
            self._loop.call_later(TAKEOVER_SECONDS, self._lose, session.id, held)
        else:
            self._lose(session.id, held)

    def _lose(self, session: str, held: dict[str, SideNumber]) -> None:
        for room_id, side in held.items():
            self._room_commands.execute_quietly(room_id, commands.Lose(side, session))

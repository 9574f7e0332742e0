"""The sessions that are open on this node: what rooms tell them, and which sides they hold."""

from __future__ import annotations

import asyncio

from keepline.room.record import SIDES, Room, Status
from signal_node.protocol import close_codes
from signal_node.transport.connections import Connections

LEAVING_SECONDS = 0.3
"""How long a connection that was sent goodbye still gets frames after another one has taken over its user."""


class LocalSessions:
    """The audience of the rooms on this node (`rooms.cache.Audience`)."""

    def __init__(self, node: str, clients: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self.replaced_ones = 0
        self._node = node
        self._clients = clients
        self._loop = loop

    def ids(self) -> list[str]:
        """The ids of all sessions."""
        return self._clients.sessions()

    def has(self, session: str) -> bool:
        """Whether the session is open on this node."""
        return self._clients.get(session) is not None

    def stays(self, session: str) -> bool:
        """Whether the session is open on this node, and not about to be closed."""
        connection = self._clients.get(session)
        return connection is not None and not connection.replaced and not connection.websocket.closing

    def deliver(self, session: str, data: bytes) -> None:
        """Write a room's frame to a session."""
        self._clients.forward(session, data)

    def replaced(self, session: str) -> None:
        """Close the connection of a session that lost its user to a newer one."""
        self.put_out(session, close_codes.REPLACED)

    def put_out(self, session: str, close: close_codes.CloseCode) -> None:
        """Close the connection of a session that no longer holds its user."""
        connection = self._clients.get(session)
        if connection is None or connection.replaced or connection.session.closed():
            return
        connection.replaced = True
        self.replaced_ones += 1
        if connection.leaving:
            # The client connected elsewhere first, as it should. Frames that its peer still sends here are not lost.
            self._loop.call_later(LEAVING_SECONDS, connection.close, close)
        else:
            connection.close(close)

    def room_changed(self, before: Room | None, after: Room) -> None:
        """Sessions learn only from the record which sides they hold."""
        ended = after.status is Status.ENDED
        for number in SIDES:
            held = None if before is None else before.side(number)
            holds = after.side(number)
            if held is not None and held.session is not None and held.session != holds.session:
                loser = self._clients.get(held.session)
                if loser is not None:
                    loser.session.rooms.release(after.room_id, ended=ended, reason=after.ended_reason)
                    if holds.connected:
                        # The message about it may have been missed: one user has one connection.
                        self.replaced(held.session)
            if holds.node == self._node and holds.session is not None:
                holder = self._clients.get(holds.session)
                if holder is not None:
                    holder.session.rooms.hold(after.room_id, number)

"""Closes the connection of a session that no longer holds its user, on any node."""

from __future__ import annotations

from signal_node.bus.outbox import Outbox
from signal_node.protocol import close_codes
from signal_node.signaling.local_sessions import LocalSessions


class Takeover:
    """Tells sessions of this node directly, those of other nodes over the bus."""

    def __init__(self, node: str, sessions: LocalSessions, outbox: Outbox) -> None:
        self._node = node
        self._sessions = sessions
        self._outbox = outbox

    def replace(self, node: str, session: str) -> None:
        """A newer session has taken the user."""
        if node == self._node:
            self._sessions.replaced(session)
        else:
            self._outbox.replace(node, session)

    def disconnect(self, node: str, session: str) -> None:
        """The app's backend disconnects the user."""
        if node == self._node:
            self._sessions.put_out(session, close_codes.DISCONNECTED)
        else:
            self._outbox.replace(node, session, by_backend=True)

"""Passes messages of other nodes to the parts that they concern."""

from __future__ import annotations

from signal_node.protocol import close_codes
from signal_node.rooms.cache import Rooms
from signal_node.rooms.fanout import decode_notice
from signal_node.rooms.suspicions import Suspicions
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.signaling.relay import SignalRelay


class InboxReceiver:
    """The receiver of this node's inbox (`bus.inbox.Receiver`)."""

    def __init__(
        self, relay: SignalRelay, sessions: LocalSessions, rooms: Rooms, suspicions: Suspicions
    ) -> None:
        self.frame_received = relay.received
        self.slow_received = relay.slow_received
        self._sessions = sessions
        self._rooms = rooms
        self._suspicions = suspicions

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        """A session's user has connected elsewhere, or was disconnected by the app's backend."""
        self._sessions.put_out(session, close_codes.DISCONNECTED if by_backend else close_codes.REPLACED)

    def notice_received(self, data: bytes) -> None:
        """Another node has changed a room that has a side here."""
        self._rooms.absorb(decode_notice(data))

    def inbox_gap(self) -> None:
        """The inbox may have missed something."""
        self._suspicions.look_at_all()

"""The path of a signal.

`SignalRelay.relay` does two lookups in memory, then writes to the peer's connection or to the outbox. It never awaits.
If the peer reads too slowly, the sender is told to wait.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from keepline.ops.metrics import Timings
from keepline.room.record import other
from signal_node.bus.outbox import Outbox
from signal_node.protocol.effects import Relay
from signal_node.protocol.signal_kind import CANDIDATE
from signal_node.rooms.cache import Rooms
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import MIN_BYTES, OfferOutcomes
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections

SAMPLED = 32
"""One in this many signals is timed."""

SLOW_MS = 1_000
"""How long the sender should wait if its peer reads too slowly."""

MAX_SLOW = 1_000

_RELAY_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)


@dataclass(slots=True)
class RelayCounts:
    """Counters on the path of a signal: plain numbers, read during a scrape."""

    relayed_here: int = 0
    relayed_across: int = 0
    received_across: int = 0
    dropped: int = 0
    slow: int = 0
    seconds: Timings = field(default_factory=lambda: Timings(_RELAY_BOUNDS))


class SignalRelay:
    """Passes signals from sessions of this node, and of other nodes, to their peers."""

    def __init__(
        self,
        node: str,
        clients: Connections,
        rooms: Rooms,
        outbox: Outbox,
        negotiation_log: NegotiationLog,
        offer_outcomes: OfferOutcomes,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.counts = RelayCounts()
        self._node = node
        self._clients = clients
        self._rooms = rooms
        self._outbox = outbox
        self._negotiation_log = negotiation_log
        self._offer_outcomes = offer_outcomes
        self._loop = loop
        self._slow: dict[str, float] = {}  # sessions of other nodes that read too slowly, and until when

    def relay(self, connection: Connection, relay: Relay) -> None:
        """Forward to the peer, immediately. Nothing is awaited here."""
        room_id, side, data, counts = relay.room_id, relay.side, relay.data, self.counts
        kind = self._negotiation_log.relayed(room_id, side, connection.session.id, data, connection.heard_at)
        room = self._rooms.get(room_id)
        if room is None:
            counts.dropped += 1
            return
        peer = room.side_2 if side == 1 else room.side_1
        session, node = peer.session, peer.node
        if session is None or node is None:
            counts.dropped += 1
        elif node != self._node:
            if (self._slow and self._is_slow(session)) or not self._outbox.send(node, session, data):
                self._refuse(connection, room_id)
                return
            counts.relayed_across = number = counts.relayed_across + 1
            if not number % SAMPLED:
                self._outbox.time_latency(node)
        elif (receiver := self._clients.get(session)) is None:
            counts.dropped += 1
        elif receiver.outgoing.relay(data):
            counts.relayed_here = number = counts.relayed_here + 1
            if not number % SAMPLED:
                # The connections are flushed before this runs, because the flush was requested when the frame was
                # forwarded.
                self._loop.call_soon(self._relayed, time.perf_counter())
        else:
            self._refuse(connection, room_id)
            return
        if kind is not None and kind is not CANDIDATE:
            self._offer_outcomes.sent(room_id, side, kind)

    def received(self, session: str, data: bytes) -> None:
        """Pass on a signal from a peer on another node."""
        self.counts.received_across += 1
        if len(data) >= MIN_BYTES:
            self._offer_outcomes.received(data)
        receiver = self._clients.get(session)
        if receiver is None:
            self.counts.dropped += 1
        elif not receiver.outgoing.relay(data):
            self.counts.dropped += 1
            self._tell_slow(receiver)

    def slow_received(self, session: str, room_id: str) -> None:
        """A session of another node has no room for signals from its peers here."""
        now = self._loop.time()
        if len(self._slow) >= MAX_SLOW:
            self._slow = {slow: until for slow, until in self._slow.items() if until > now}
        self._slow[session] = now + SLOW_MS / 1_000
        room = self._rooms.get(room_id)
        if room is None:
            return
        for side in (room.side_1, room.side_2):
            sender = None if side.session is None else self._clients.get(side.session)
            if sender is not None:
                self._refuse(sender, room_id)

    def _refuse(self, connection: Connection, room_id: str) -> None:
        """Tell the sender, not the receiver, that there is no room for a signal."""
        self.counts.slow += 1
        connection.perform(connection.session.answers.peer_too_slow(room_id, SLOW_MS))

    def _is_slow(self, session: str) -> bool:
        until = self._slow.get(session)
        if until is None or until > self._loop.time():
            return until is not None
        del self._slow[session]
        return False

    def _relayed(self, began: float) -> None:
        self.counts.seconds.observe(time.perf_counter() - began)

    def _tell_slow(self, receiver: Connection) -> None:
        """Tell the nodes of a client's peers that it reads more slowly than they send."""
        now = self._loop.time()
        if now - receiver.slow_told_at < SLOW_MS / 4_000:
            return
        receiver.slow_told_at = now
        for room_id, side in receiver.session.rooms.held.items():
            room = self._rooms.get(room_id)
            peer = None if room is None else room.side(other(side))
            if peer is not None and peer.node is not None and peer.node != self._node:
                self._outbox.tell_slow(peer.node, receiver.session.id, room_id)

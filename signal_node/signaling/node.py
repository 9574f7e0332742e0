"""The node: relays, and performs what sessions and rooms decide.

The path of a signal is `relay`, and is all there is to it: two look-ups in memory, then the peer's connection or the
bus. Everything that takes time (a token, a join, a commit) is `requests`' beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from keepline.ops.metrics import Timings
from keepline.room import commands
from keepline.room.record import SIDES, Room, SideNumber, Status, other
from keepline.room.state import IllegalTransition
from signal_node.bus.bus import Bus
from signal_node.limits.address_limits import AddressLimits
from signal_node.protocol import close_codes
from signal_node.protocol.session import Relay, Request
from signal_node.protocol.signal_kind import CANDIDATE
from signal_node.rooms.cache import Rooms
from signal_node.rooms.fanout import decode_notice
from signal_node.rooms.journal import Done, JournalFull, OnDone, Outcome, ignore_outcome
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import MIN_BYTES, OfferOutcomes
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections
from signal_node.users.ownership import Users

TAKEOVER_SECONDS = 2.0
"""How long a connection that took over a user has to take its sides, before the old one's count as lost."""

SAMPLED = 32
"""One signal in so many is timed."""

_RELAY_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)

LEAVING_SECONDS = 0.3
"""How long a connection that was told goodbye is written to after another one has taken over its user."""

SLOW_MS = 1_000
"""How long a sender is to wait whose peer does not read as fast."""

MAX_SLOW = 1_000

Begin = Callable[[Connection, Request], None]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What is counted on the path of a signal: plain numbers, read when metrics are asked for."""

    relayed_here: int = 0
    relayed_across: int = 0
    received_across: int = 0
    dropped: int = 0
    slow: int = 0
    replaced: int = 0
    seconds: Timings = field(default_factory=lambda: Timings(_RELAY_BOUNDS))


class Node:
    """One signal node's behaviour. It handles connections, receives from the bus, and is the audience of rooms."""

    def __init__(self, node_id: str, clients: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self.id = node_id
        self.counts = Counts()
        self.negotiation_log = NegotiationLog()
        self.clients = clients
        self.offer_outcomes = OfferOutcomes(self._cached, time.monotonic)
        self.rooms: Rooms
        self.store: RoomStore
        self.users: Users
        self.bus: Bus
        self._limits: AddressLimits
        self._draining: Callable[[], bool]
        self._begin: Begin
        self._gone: Callable[[Connection], None]
        self._reconciler: Reconciler
        self._loop = loop
        self._slow: dict[str, float] = {}  # sessions of other nodes that read too slowly, and until when

    def connect(
        self,
        rooms: Rooms,
        store: RoomStore,
        users: Users,
        bus: Bus,
        reconciler: Reconciler,
        begin: Begin,
        gone: Callable[[Connection], None],
        limits: AddressLimits,
        draining: Callable[[], bool],
    ) -> None:
        """Take what in turn needs the node.

        `begin` is called with each request of a client, `gone` with each connection that has closed;
        while `draining()` nobody comes in.
        """
        self.rooms, self.store, self.users, self.bus = rooms, store, users, bus
        self._reconciler, self._begin, self._gone, self._limits = reconciler, begin, gone, limits
        self._draining = draining

    def now(self) -> float:
        """The time in seconds, monotonic."""
        return self._loop.time()

    # --- connections (connection.Handler) ---

    def accept(self, host: str | None = None) -> Connection:
        """The protocol of a connection from an IP address."""
        return self.clients.accept(self, host)

    def draining(self) -> bool:
        """Whether clients that come now are sent to other nodes."""
        return self._draining()

    def trusts(self, connection: Connection) -> bool:
        """Whether the other end of the socket is a trusted proxy."""
        return self._limits.trusts(connection)

    def misled(self, connection: Connection, why: str) -> None:
        """A trusted proxy has said nothing that can be understood about whom it passes on."""
        self._limits.misled(connection, why)

    def refused(self, connection: Connection, status: int, why: str) -> None:
        """A handshake was refused; a node that drains refuses everybody, which is no news."""
        if not self._draining():
            self._limits.log.handshake_refused(connection.peer_host, status, why)

    def origin_refused(self, connection: Connection, origin: str) -> None:
        """The page that connects is not listed."""
        self._limits.log.origin_refused(connection.address, origin)

    def opened(self, connection: Connection) -> None:
        """A client has done the handshake."""
        self.clients.opened(connection)
        self._limits.opened(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone: its sides are lost, at once or when its successor has had time to take them."""
        session = connection.session
        self.clients.closed(connection)
        if session.user:
            _log.info("session_closed", session=session.id, end=connection.websocket.ended_by)
        self._limits.closed(connection)
        self._gone(connection)
        if not session.rooms:
            return
        held = dict(session.rooms)
        how = "lost" if connection.closed_as is None else f"closed {connection.closed_as.code}"
        for room_id, side in held.items():
            self.negotiation_log.note(room_id, side, session.id, how, self.now())
        if connection.closed_as is close_codes.REPLACED:
            self._loop.call_later(TAKEOVER_SECONDS, self._lose, session.id, held)
        else:
            self._lose(session.id, held)

    def _lose(self, session: str, held: dict[str, SideNumber]) -> None:
        for room_id, side in held.items():
            self._execute_quietly(room_id, commands.Lose(side, session))

    def relay(self, connection: Connection, relay: Relay) -> None:
        """Forward to the peer, now. Nothing is awaited here."""
        room_id, side, data, counts = relay.room_id, relay.side, relay.data, self.counts
        kind = self.negotiation_log.relayed(room_id, side, connection.session.id, data, connection.heard_at)
        room = self.rooms.get(room_id)
        if room is None:
            counts.dropped += 1
            return
        peer = room.side_2 if side == 1 else room.side_1
        session, node = peer.session, peer.node
        if session is None or node is None:
            counts.dropped += 1
        elif node != self.id:
            if (self._slow and self._is_slow(session)) or not self.bus.send(node, session, data):
                self._refuse(connection, room_id)
                return
            counts.relayed_across = number = counts.relayed_across + 1
            if not number % SAMPLED:
                self.bus.time_latency(node)
        elif (receiver := self.clients.get(session)) is None:
            counts.dropped += 1
        elif receiver.relay(data):
            counts.relayed_here = number = counts.relayed_here + 1
            if not number % SAMPLED:
                # The connections' flush is due before this: it was asked for when the frame was forwarded.
                self._loop.call_soon(self._relayed, time.perf_counter())
        else:
            self._refuse(connection, room_id)
            return
        if kind is not None and kind is not CANDIDATE:
            self.offer_outcomes.sent(room_id, side, kind)

    def _refuse(self, connection: Connection, room_id: str) -> None:
        """Tell the sender, not the receiver, that there is no room for a signal."""
        self.counts.slow += 1
        connection.perform(connection.session.peer_too_slow(room_id, SLOW_MS))

    def _is_slow(self, session: str) -> bool:
        until = self._slow.get(session)
        if until is None or until > self._loop.time():
            return until is not None
        del self._slow[session]
        return False

    def _relayed(self, began: float) -> None:
        self.counts.seconds.observe(time.perf_counter() - began)

    def _cached(self, room_id: str) -> Room | None:
        return self.rooms.get(room_id)

    def perform(self, connection: Connection, effect: Request) -> None:
        """Begin what takes time."""
        self._begin(connection, effect)

    def has(self, session: str) -> bool:
        """Whether the session is open on this node."""
        return self.clients.get(session) is not None

    # --- the bus (bus.Receiver) ---

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame from a peer on another node."""
        self.counts.received_across += 1
        if len(data) >= MIN_BYTES:
            self.offer_outcomes.received(data)
        receiver = self.clients.get(session)
        if receiver is None:
            self.counts.dropped += 1
        elif not receiver.relay(data):
            self.counts.dropped += 1
            self._tell_slow(receiver)

    def _tell_slow(self, receiver: Connection) -> None:
        """Let the nodes of a client's peers know that it does not read as fast as they send."""
        now = self._loop.time()
        if now - receiver.slow_told_at < SLOW_MS / 4_000:
            return
        receiver.slow_told_at = now
        for room_id, side in receiver.session.rooms.items():
            room = self.rooms.get(room_id)
            peer = None if room is None else room.side(other(side))
            if peer is not None and peer.node is not None and peer.node != self.id:
                self.bus.tell_slow(peer.node, receiver.session.id, room_id)

    def slow_received(self, session: str, room_id: str) -> None:
        """A session of another node has no room for what its peers here send."""
        now = self._loop.time()
        if len(self._slow) >= MAX_SLOW:
            self._slow = {slow: until for slow, until in self._slow.items() if until > now}
        self._slow[session] = now + SLOW_MS / 1_000
        room = self.rooms.get(room_id)
        if room is None:
            return
        for side in (room.side_1, room.side_2):
            sender = None if side.session is None else self.clients.get(side.session)
            if sender is not None:
                self._refuse(sender, room_id)

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        """A session's user has connected elsewhere, or the app's backend wants it gone."""
        self._put_out(session, close_codes.DISCONNECTED if by_backend else close_codes.REPLACED)

    def notice_received(self, data: bytes) -> None:
        """Another node has changed a room that has a side here."""
        self.rooms.absorb(decode_notice(data))

    def frames_dropped(self, frames: int) -> None:
        """The bus had to drop frames."""
        self.counts.dropped += frames

    def inbox_gap(self) -> None:
        """The inbox may have missed something."""
        self._reconciler.suspicions.look_at_all()

    # --- rooms (rooms.Audience) ---

    def deliver(self, session: str, data: bytes) -> None:
        """Write a room's frame to a session."""
        self.clients.forward(session, data)

    def replaced(self, session: str) -> None:
        """Close the connection of a session that lost its user to a newer one."""
        self._put_out(session, close_codes.REPLACED)

    def _put_out(self, session: str, close: close_codes.CloseCode) -> None:
        connection = self.clients.get(session)
        if connection is None or connection.replaced or connection.session.closed():
            return
        connection.replaced = True
        self.counts.replaced += 1
        if connection.leaving:
            # The client connects elsewhere first, as it should: what its peer still sends here is not lost.
            self._loop.call_later(LEAVING_SECONDS, connection.close, close)
        else:
            connection.close(close)

    def stays(self, session: str) -> bool:
        """Whether the session is open on this node, and not about to be closed."""
        connection = self.clients.get(session)
        return connection is not None and not connection.replaced and not connection.websocket.closing

    def room_changed(self, before: Room | None, after: Room) -> None:
        """Sessions learn which sides they hold from the record alone."""
        ended = after.status is Status.ENDED
        for number in SIDES:
            held = None if before is None else before.side(number)
            holds = after.side(number)
            if held is not None and held.session is not None and held.session != holds.session:
                loser = self.clients.get(held.session)
                if loser is not None:
                    loser.session.release(after.room_id, ended=ended, reason=after.ended_reason)
                    if holds.connected:
                        # The word that came for it may have been missed: one user has one connection.
                        self.replaced(held.session)
            if holds.node == self.id and holds.session is not None:
                holder = self.clients.get(holds.session)
                if holder is not None:
                    holder.session.hold(after.room_id, number)

    # --- commands that somebody waits for: of requests, the HTTP API, deadlines ---

    async def execute(
        self, room: Room | None, room_id: str, command: commands.Command, now: int | None = None
    ) -> Room:
        """Carry out a command and wait until it is stored. Raises IllegalTransition, NotStored, JournalFull."""
        outcome = await self.executed(room, room_id, command, None, now)
        if isinstance(outcome, Done):
            return outcome.room
        raise outcome

    async def executed(
        self,
        room: Room | None,
        room_id: str,
        command: commands.Command,
        asker: str | None,
        now: int | None = None,
    ) -> Outcome:
        """Carry out a command for a session, if `asker` is one; what became of it. Raises JournalFull."""
        stored: asyncio.Future[Outcome] = self._loop.create_future()
        try:
            self.rooms.execute(room, room_id, command, _settling(stored), asker, now)
        except IllegalTransition as error:
            return error
        return await stored

    def _execute_quietly(self, room_id: str, command: commands.Command, room: Room | None = None) -> None:
        """Carry out a command that nobody waits for."""
        try:
            self.rooms.execute(room, room_id, command, ignore_outcome)
        except IllegalTransition:
            pass  # the room is gone or over: there is nothing left to lose
        except JournalFull:
            _log.error("command_dropped", room=room_id, command=command.kind)

    def replace(self, node: str, session: str) -> None:
        """Close the connection of a session that lost its user, wherever it is."""
        if node == self.id:
            self.replaced(session)
        else:
            self.bus.replace(node, session)

    async def disconnect(self, user: str) -> bool:
        """Close the user's connection, wherever it is; False when there is none. Raises StoreUnavailable."""
        holder = await self.users.holder(user)
        if holder is None:
            return False
        node, session = holder
        if node == self.id:
            self._put_out(session, close_codes.DISCONNECTED)
        else:
            self.bus.replace(node, session, by_backend=True)
        return True


def _settling(future: asyncio.Future[Outcome]) -> OnDone:
    def settle(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    return settle

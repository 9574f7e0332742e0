"""One client's connection: an asyncio protocol that connects framing and session. No task per connection.

`Reading` decides when to read, and `Outgoing` writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from keepline.ops.budget import Budget
from keepline.ops.origins import Origins
from keepline.ops.turns import Turns
from signal_node.protocol import close_codes
from signal_node.protocol.effects import (
    Act,
    CloseConnection,
    Effect,
    JoinRequest,
    Relay,
    Request,
    Send,
)
from signal_node.protocol.session import Session, Stage
from signal_node.protocol.token_bucket import Bucket
from signal_node.transport.budget import COSTS
from signal_node.transport.events import Event, Misled, Opened, Refused, Violated
from signal_node.transport.outgoing import LARGE_ANSWER, Outgoing, Writer
from signal_node.transport.reading import MAX_OWED, Reading
from signal_node.transport.stalls import Stalls
from signal_node.transport.websocket import WebSocket

CLOSE_SECONDS = 5.0
"""How long a client may take to answer a close."""

MAX_JOINS = 1
"""Maximum number of concurrent joins per connection, because each may load a long chat. Others wait, in order."""

AT_ONCE_BYTES = 16_384
"""Size up to which a packet of a welcomed client is read at once: enough for any offer or a burst of candidates.

Other clients always wait their turn: a handshake costs as much as a hundred signals, and so would a packet of pings.
"""

MAX_DISCARDED = 1_048_576
"""Bytes that a client may still send after our close before it is cut off."""

CLOSE_FRAME = b"\x88"
"""The first byte of the client's answer to a close."""

_FRAME, _BYTE, _ANSWERED = COSTS.frame, COSTS.kib_received / 1_024, COSTS.kib_answered / 1_024

_READY = Stage.READY
"""Looked up once, as in `Session`."""


class Handler(Protocol):
    """What a connection needs from the node."""

    def draining(self) -> bool:
        """Whether new clients are sent to other nodes."""

    def trusts(self, connection: Connection) -> bool:
        """Whether a PROXY header on this connection is trusted."""

    def misled(self, connection: Connection, why: str) -> None:
        """The PROXY header was malformed; the connection is about to be dropped."""

    def refused(self, connection: Connection, status: int, why: str) -> None:
        """The handshake was refused."""

    def origin_refused(self, connection: Connection, origin: str) -> None:
        """The page's origin is not allowed."""

    def opened(self, connection: Connection) -> None:
        """The client has completed its handshake."""

    def relay(self, connection: Connection, relay: Relay) -> None:
        """Forward a signal to the peer, without awaiting."""

    def perform(self, connection: Connection, effect: Request) -> None:
        """Start an effect that takes time."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone. Called once, also for connections that never opened."""


class Connection(asyncio.Protocol):
    """A client's connection and its session."""

    __slots__ = (
        "_credited",
        "_discarded",
        "_gone",
        "_handler",
        "_joins",
        "_loop",
        "_origins",
        "_other_frames",
        "_stalls",
        "_transport",
        "_writer",
        "address",
        "closed_as",
        "closing_since",
        "forwarded_for",
        "heard_at",
        "leaving",
        "opened_at",
        "outgoing",
        "pinged_at",
        "reading",
        "replaced",
        "session",
        "slow_told_at",
        "socket_host",
        "websocket",
    )

    def __init__(
        self,
        handler: Handler,
        session: Session,
        websocket: WebSocket,
        writer: Writer,
        turns: Turns,
        stalls: Stalls,
        *,
        loop: asyncio.AbstractEventLoop,
        socket_host: str | None,
        budget: Budget,
        other_frames: Bucket,
        max_outgoing: int,
        origins: Origins,
    ) -> None:
        self.session = session
        self.websocket = websocket
        self.outgoing = Outgoing(websocket, writer, max_outgoing)
        self._writer = writer
        self.reading = Reading(self, budget, turns, loop)
        self.opened_at = self.heard_at = loop.time()
        self.pinged_at: float | None = None
        self.closing_since: float | None = None
        self.closed_as: close_codes.CloseCode | None = None
        self.leaving = False  # `goodbye` was sent
        self.slow_told_at = 0.0  # when the peer's node was last told that it reads too slowly
        self.replaced = False  # another session has taken over the user
        self.forwarded_for = ""
        self.address: str | None = None
        self.socket_host = socket_host  # the address of the socket, as counted from `accept` on
        self._handler = handler
        self._stalls = stalls
        self._credited = stalls.number
        self._other_frames = other_frames
        self._discarded = 0
        self._gone = False
        self._joins: deque[JoinRequest] = deque()
        self._loop = loop
        self._origins = origins
        self._transport: asyncio.Transport | None = None

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio has accepted the connection. The handshake follows."""
        self._transport = cast(asyncio.Transport, transport)
        self.outgoing.connected(self._transport)
        self.reading.connected(self._transport)
        self.opened_at = self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Process received data: small packets at once, others when it is this connection's turn."""
        self.heard_at = now = self._loop.time()
        self.pinged_at = None
        stalls = self._stalls
        if now > stalls.late_at:
            stalls.check(now)
        if self._credited != stalls.number:
            self._credit()
        reading = self.reading
        if self.session.stage is _READY and len(data) <= AT_ONCE_BYTES and not reading.waits:
            if (text := self.websocket.single_text(data)) is None:
                self._read(data, now)
                return
            writer = self._writer
            writer.at_once = True
            try:
                self.perform(self.session.receive(text, now))
            finally:
                writer.at_once = False
            reading.owed += _FRAME + len(data) * _BYTE
            if reading.owed > MAX_OWED:
                reading.settle(now, behind=False)
        elif self.websocket.closing:
            self._discard(data)
        else:
            self.websocket.keep(data)
            reading.owed += len(data) * _BYTE
            reading.rest(0.0)

    def _read(self, data: bytes, now: float) -> None:
        """Process a slice: parse frames, pass each message to the session, and perform its effects.

        Without new data, continue with what is left of the last data.
        """
        websocket = self.websocket
        events = websocket.receive(data, self)
        for event in events:
            if type(event) is str:
                self.perform(self.session.receive(event, now))
            else:
                _happened(self, event, self._handler, self._origins)
        others = websocket.other_frames
        if others and not all(self._other_frames.take(now) for _ in range(others)):
            self.close(close_codes.RATE_LIMITED)
        if websocket.pending:
            self.outgoing.wake()
        if not events and websocket.closing:
            self._discard(data)
            return
        reading = self.reading
        reading.owed += (len(events) + others) * _FRAME + len(data) * _BYTE
        if websocket.behind or reading.owed > MAX_OWED:
            reading.settle(now, behind=websocket.behind)

    def eof_received(self) -> bool:
        """The client will send nothing more."""
        self.websocket.eof()
        self.outgoing.flush()
        return False

    def pause_writing(self) -> None:
        """Twice the limit is unread, although signals stop at the limit: disconnect the client."""
        self.close(close_codes.TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        if self._gone:
            return
        self._gone = True
        self._transport = None
        self.websocket.release()
        self.session.stage = Stage.CLOSED
        self.outgoing.lost()
        self.reading.lost()
        self._joins.clear()
        self._handler.closed(self)

    @property
    def peer_host(self) -> str | None:
        """The IP address of the socket: the client's, or a proxy's. None if the client has already disconnected."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else None

    # --- events.Entrance ---

    def draining(self) -> bool:
        """Whether the node refuses new clients."""
        return self._handler.draining()

    def behind_proxy(self) -> bool:
        """Whether the socket belongs to a trusted proxy."""
        return self._handler.trusts(self)

    # --- called by the node ---

    def hello_due_in(self, seconds: float) -> None:
        """The client was told to send `hello` after `seconds`. Its timeout starts then."""
        self.opened_at = self._loop.time() + seconds

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform a session's effects in order."""
        for effect in effects:
            if type(effect) is Relay:
                self._handler.relay(self, effect)
                continue
            match effect:
                case Send(data):
                    self.write(data)
                case CloseConnection(close):
                    self._begin_close(close)
                case JoinRequest():
                    self.reading.spend(COSTS.read + COSTS.change)
                    self._joins.append(effect)
                    self._begin_joins()
                case _:
                    self.reading.spend(COSTS.change if isinstance(effect, Act) else COSTS.read)
                    self._handler.perform(self, effect)

    def write(self, data: bytes) -> None:
        """Send a frame that answers the client."""
        if len(data) > LARGE_ANSWER:
            self.reading.spend(len(data) * _ANSWERED)
        self.outgoing.answer(data)

    def answered(self) -> None:
        """The answer to a join has been written: write the frames that were held back, and start the next join."""
        self.outgoing.answered()
        self._begin_joins()

    def close(self, close: close_codes.CloseCode) -> None:
        """Close the connection on the node's initiative."""
        self.perform(self.session.close(close))

    def ping(self, now: float) -> None:
        """Ping the client."""
        self.pinged_at = now
        self.websocket.ping()
        self.outgoing.wake()

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    # --- turns.Reader ---

    def go_on(self) -> None:
        """Process another slice of the received data, or resume reading."""
        reading = self.reading
        reading.waits = False
        if self._transport is None:
            return
        if self.websocket.behind:
            self._read(b"", self.heard_at)
        else:
            reading.spend(0.0)
        reading.resume()

    def _credit(self) -> None:
        """Data that was sent during a stall of the node does not count as a burst."""
        self._credited = self._stalls.number
        if self.heard_at > self._stalls.credited_until:
            return
        self._other_frames.missed(self._stalls.seconds)
        self.session.stalled(self._stalls.seconds)

    def _discard(self, data: bytes) -> None:
        """Disconnect a client that keeps sending long after our close."""
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.abort()
        elif data[:1] == CLOSE_FRAME and self._transport is not None and not self._transport.can_write_eof():
            self._transport.close()  # TLS has no half-close, and the client waits for us

    def _begin_joins(self) -> None:
        while self._joins and self.outgoing.pending_answers < MAX_JOINS:
            self._handler.perform(self, self._joins.popleft())

    def _begin_close(self, close: close_codes.CloseCode) -> None:
        self.closed_as = close
        self.websocket.close(close.code, close.reason)
        self.outgoing.wake()


def _happened(connection: Connection, event: Event, handler: Handler, origins: Origins) -> None:
    """Handle any event other than a message: the handshake, a violation, a bad PROXY header."""
    match event:
        case Opened(origin, forwarded_for):
            connection.forwarded_for = forwarded_for
            handler.opened(connection)
            if origin is not None and not origins.allow(origin):
                handler.origin_refused(connection, origin)
                connection.close(close_codes.ORIGIN_REFUSED)
        case Violated():
            connection.session.stage = Stage.CLOSED
        case Refused(status, why):
            connection.session.stage = Stage.CLOSED
            handler.refused(connection, status, why)
        case Misled(why):
            handler.misled(connection, why)
            connection.abort()

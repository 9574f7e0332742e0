"""One client's connection: an asyncio protocol that joins framing and session. No task per connection.

All that is written to one connection within a tick of the loop leaves in one write: `Writer` collects the
connections that have something to send and flushes them when the tick is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

from signal_node.protocol import close_codes
from signal_node.protocol.session import (
    CloseConnection,
    Effect,
    Relay,
    Request,
    Send,
    Session,
    Stage,
)
from signal_node.transport.websocket import Misled, Opened, Refused, Violated, WebSocket

CLOSE_SECONDS = 5.0
"""How long a client may take to answer a close."""

MAX_HELD_FRAMES = 1_000
"""Frames from peers that wait while the answer to a join is on its way."""

LARGE_ANSWER = 65_536
"""Bytes from which on an answer does not count as unread: the snapshots of rooms with a long chat."""


class Handler(Protocol):
    """What a connection needs of the node."""

    def draining(self) -> bool:
        """Whether clients that come now are sent elsewhere."""

    def trusts(self, connection: Connection) -> bool:
        """Whether a PROXY header is believed that comes on this connection."""

    def misled(self, connection: Connection, why: str) -> None:
        """Such a header was none; the connection is about to be dropped."""

    def opened(self, connection: Connection) -> None:
        """A client is there, its handshake done."""

    def relay(self, connection: Connection, relay: Relay) -> None:
        """Forward to the peer, without waiting for anything."""

    def perform(self, connection: Connection, effect: Request) -> None:
        """Begin what takes time."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone; called once, also for those that never opened."""


class Writer:
    """Flushes, once a tick, the connections that have something to send."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Flush `connection` at the end of this tick."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.flush()


class Connection(asyncio.Protocol):
    """A client's connection and its session."""

    __slots__ = (
        "_dirty",
        "_handler",
        "_held",
        "_largest_answer",
        "_loop",
        "_max_outgoing",
        "_origins",
        "_pending_answers",
        "_transport",
        "_writer",
        "address",
        "closed_as",
        "closing_since",
        "forwarded_for",
        "heard_at",
        "leaving",
        "opened_at",
        "pinged_at",
        "replaced",
        "session",
        "websocket",
    )

    def __init__(
        self,
        handler: Handler,
        session: Session,
        websocket: WebSocket,
        writer: Writer,
        *,
        loop: asyncio.AbstractEventLoop,
        max_outgoing: int,
        origins: frozenset[str],
    ) -> None:
        self.session = session
        self.websocket = websocket
        self.opened_at = self.heard_at = loop.time()
        self.pinged_at: float | None = None
        self.closing_since: float | None = None
        self.closed_as: close_codes.Close | None = None
        self.leaving = False  # it has been told goodbye
        self.replaced = False  # its session has lost the user
        self.forwarded_for = ""
        self.address: str | None = None
        self._handler = handler
        self._writer = writer
        self._loop = loop
        self._max_outgoing = max_outgoing
        self._origins = origins
        self._transport: asyncio.Transport | None = None
        self._dirty = False
        self._pending_answers = 0
        self._largest_answer = LARGE_ANSWER
        self._held: list[bytes] = []

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio has accepted the connection; the handshake is still to come."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._max_outgoing)
        self.websocket.entrance = self
        self.opened_at = self.heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Feed the websocket, then the session with each message, and perform what it decides."""
        self.heard_at = now = self._loop.time()
        self.pinged_at = None
        for event in self.websocket.receive(data):
            if type(event) is str:
                self.perform(self.session.receive(event, now))
            elif type(event) is Opened:
                self._open(event)
            elif type(event) is Violated or type(event) is Refused:
                self.session.stage = Stage.CLOSED
            elif type(event) is Misled:
                self._handler.misled(self, event.why)
                self.abort()
        if self.websocket.pending:
            self._wake()

    def eof_received(self) -> bool:
        """The client will send no more."""
        self.websocket.eof()
        self.flush()
        return False

    def pause_writing(self) -> None:
        """More than the limit waits for a client that does not read: it has to go."""
        self.close(close_codes.TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._transport = None
        self.websocket.entrance = None
        self.session.stage = Stage.CLOSED
        self._held.clear()
        self._handler.closed(self)

    @property
    def peer_host(self) -> str | None:
        """The IP address at the other end of the socket: the client's, or a proxy's. None when it has gone again."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else None

    # --- websocket.Entrance ---

    def draining(self) -> bool:
        """Whether the node takes no clients now."""
        return self._handler.draining()

    def behind_proxy(self) -> bool:
        """Whether the other end of the socket is a trusted proxy."""
        return self._handler.trusts(self)

    # --- what the node does with it ---

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out a session's effects in order."""
        for effect in effects:
            if type(effect) is Relay:
                self._handler.relay(self, effect)
                continue
            match effect:
                case Send(data):
                    self.write(data)
                case CloseConnection(close):
                    self._begin_close(close)
                case _:
                    self._handler.perform(self, effect)

    def write(self, data: bytes) -> None:
        """Send a frame that answers the client."""
        if len(data) > self._largest_answer:
            self._make_room(len(data))
        self.websocket.send(data)
        self._wake()

    def forward(self, data: bytes) -> None:
        """Send a frame that comes from the peer or the room: after `joined`, if a join is on its way."""
        if self._pending_answers:
            if len(self._held) < MAX_HELD_FRAMES:
                self._held.append(data)
            return
        self.websocket.send(data)
        if not self._dirty:
            self._wake()

    def answer_pending(self) -> None:
        """Keep frames of the room back until its `joined` has been written."""
        self._pending_answers += 1

    def answered(self) -> None:
        """The answer to a join is written: now what was kept back."""
        self._pending_answers -= 1
        if not self._pending_answers:
            held, self._held = self._held, []
            for data in held:
                self.websocket.send(data)
            self._wake()

    def close(self, close: close_codes.Close) -> None:
        """Close for a reason of the node's own."""
        self.perform(self.session.close(close))

    def ping(self, now: float) -> None:
        """Ask whether the client is still there."""
        self.pinged_at = now
        self.websocket.ping()
        self._wake()

    def abort(self) -> None:
        """Drop the connection without another word."""
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Write what is queued, in one go."""
        self._dirty = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        chunks = self.websocket.to_send()
        if not chunks:
            return
        transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if not chunks[-1] and transport.can_write_eof():
            # Not close(): what the client is still sending would be answered with a reset, and the reset could
            # overtake the close frame. The client closes; if it does not, the sweep does.
            transport.write_eof()

    # --- inside ---

    def _make_room(self, answer: int) -> None:
        """Let an answer wait beside what else may: a long chat, which the client asked for, makes nobody slow."""
        self._largest_answer = answer
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=self._max_outgoing + answer)

    def _wake(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._writer.add(self)

    def _open(self, opened: Opened) -> None:
        self.forwarded_for = opened.forwarded_for
        self._handler.opened(self)
        if opened.origin is not None and not {"*", opened.origin} & self._origins:
            self.close(close_codes.ORIGIN_REFUSED)

    def _begin_close(self, close: close_codes.Close) -> None:
        self.closed_as = close
        self.websocket.close(close.code, close.reason)
        self._wake()

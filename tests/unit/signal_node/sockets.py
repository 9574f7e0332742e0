"""Connections without a network: a loop whose clock stands still, a transport that notes, a client's other half."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from keepline.ops.origins import Origins
from signal_node.limits.address_limits import AddressLimits
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.rates import Rates
from signal_node.limits.refusals import Refusals
from signal_node.limits.sockets import Sockets
from signal_node.protocol.effects import Relay, Request
from signal_node.protocol.session import SessionLimits, Stage
from signal_node.transport.connection import Connection, Handler
from signal_node.transport.connections import Connections


class StillLoop:
    """What connections use of an event loop. `tick` runs what is due now, as one round of a loop would."""

    def __init__(self) -> None:
        self.now = 5_000.0
        self._soon: list[Callable[[], object]] = []
        self._later: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self._soon.append(lambda: callback(*arguments))

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> None:
        self._later.append((self.now + delay, lambda: callback(*arguments)))

    def tick(self) -> None:
        due = [callback for at, callback in self._later if at <= self.now]
        self._later = [(at, callback) for at, callback in self._later if at > self.now]
        soon, self._soon = [*due, *self._soon], []
        for callback in soon:
            callback()


class Pipe(asyncio.Transport):
    """Notes what is written; `slow` makes it ask the connection to pause."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.high = 0
        self.ended = False
        self.aborted = False
        self.closed = False
        self.half_close = True
        self.paused = False
        self.unread = 0

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "nothing is written after the end of the stream"
        self.writes.append(bytes(data))

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return self.half_close

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Notes:
    """The node, as connections see it: notes what it is asked for."""

    def __init__(self) -> None:
        self.begun: list[Request] = []
        self.relayed: list[Relay] = []
        self.closed_ones: list[Connection] = []
        self.misled_by: list[str] = []
        self.refusals: list[tuple[int, str]] = []
        self.trusting = False
        self.leaving = False
        self.answers_later = False
        self.clients: Connections | None = None
        self.forwards_to: Connection | None = None

    def draining(self) -> bool:
        return self.leaving

    def trusts(self, connection: Connection) -> bool:
        return self.trusting

    def misled(self, connection: Connection, why: str) -> None:
        self.misled_by.append(why)

    def refused(self, connection: Connection, status: int, why: str) -> None:
        self.refusals.append((status, why))

    def origin_refused(self, connection: Connection, origin: str) -> None:
        self.refusals.append((403, origin))

    def opened(self, connection: Connection) -> None:
        if self.clients is not None:
            self.clients.opened(connection)

    def relay(self, connection: Connection, relay: Relay) -> None:
        self.relayed.append(relay)
        if self.forwards_to is not None:
            self.forwards_to.outgoing.relay(relay.data)

    def perform(self, connection: Connection, effect: Request) -> None:
        self.begun.append(effect)
        if self.answers_later:
            connection.outgoing.hold_back()

    def closed(self, connection: Connection) -> None:
        self.closed_ones.append(connection)
        if self.clients is not None:
            self.clients.closed(connection)


def new_clients(loop: StillLoop, **changes: Any) -> Connections:
    settings: dict[str, Any] = {
        "limits": SessionLimits(),
        "max_frame": 65_536,
        "max_outgoing": 1_048_576,
        "origins": Origins(["https://app.example"]),
        "hello_seconds": 5.0,
        "ping_seconds": 20.0,
        "pong_seconds": 20.0,
    }
    return Connections(cast(asyncio.AbstractEventLoop, loop), **{**settings, **changes})


def new_limits(
    refusals: Refusals,
    clients: Connections,
    connections: OpenConnections,
    logins: FailedLogins,
    per_address: int = 100,
) -> AddressLimits:
    """The limits of a node that trusts 10.0.0.0/8."""
    trusted = [ip_network("10.0.0.0/8")]
    sockets = Sockets(1_000, per_address, trusted)
    rates = Rates(clients.work, clients.new_bucket, per_address / 4, 2 * per_address)
    return AddressLimits(refusals, connections, logins, trusted, sockets, rates)


class Browser:
    """A client whose packets are carried by hand to a connection of ours and back."""

    def __init__(
        self,
        clients: Connections,
        handler: Handler,
        loop: StillLoop,
        *,
        origin: str | None = None,
        open: bool = True,
    ) -> None:
        self.loop = loop
        self.pipe = Pipe()
        self.connection = clients.accept(handler)
        self.connection.connection_made(self.pipe)
        self._read = 0
        self.protocol = ClientProtocol(
            parse_uri("ws://127.0.0.1/v1"),
            subprotocols=[Subprotocol("keepline.v1")],
            origin=None if origin is None else Origin(origin),
        )
        if open:
            self.protocol.send_request(self.protocol.connect())
            self.send()
            self.frames()

    @property
    def session(self) -> str:
        return self.connection.session.id

    def send(self, *frames: dict[str, Any]) -> None:
        """Send frames in one packet, and whatever else is queued; then the loop has another turn."""
        self.packet(*frames)
        self.loop.tick()

    def packet(self, *frames: dict[str, Any]) -> None:
        """Let the connection read frames in one packet, and whatever else is queued."""
        for frame in frames:
            self.protocol.send_text(json.dumps(frame).encode())
        self.connection.data_received(b"".join(self.protocol.data_to_send()))

    def frames(self) -> list[Any]:
        """What has come since the last look: JSON of texts, "ping" or "pong", the code of a close."""
        self.loop.tick()
        for data in self.pipe.writes[self._read :]:
            self.protocol.receive_data(data)
        self._read = len(self.pipe.writes)
        events = [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        return [_short(frame) for frame in events]

    def answer(self) -> None:
        """Let the client's own answers to pings and closes go."""
        self.send()

    def drop(self) -> None:
        """The network takes the connection away."""
        self.connection.connection_lost(None)

    def is_ready(self, user: str) -> None:
        """Skip hello and welcome."""
        self.connection.session.user = user
        self.connection.session.stage = Stage.READY


def _short(frame: Frame) -> Any:
    if frame.opcode is Opcode.TEXT:
        return json.loads(bytes(frame.data))
    if frame.opcode is Opcode.CLOSE:
        return Close.parse(bytes(frame.data)).code
    return frame.opcode.name.lower()

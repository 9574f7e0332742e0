"""WebSocket framing on `websockets`' Sans-I/O protocol: bytes in, messages out, and the other way round.

Behind this small class a faster parser can take the library's place; neither the session nor the transport would
notice. Compression is not offered: signals are small, and a compressor per connection costs 60 times its memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from signal_node import closes
from signal_node.wire import SUBPROTOCOL, Error, ErrorCode, encode

PATH = "/v1"


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is through. `origin` is None outside of browsers."""

    origin: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake was answered with an HTTP error."""


@dataclass(frozen=True, slots=True)
class Violated:
    """The client broke the framing; the close has been queued."""

    close: closes.Close


Event = str | Opened | Refused | Violated


class _Protocol(ServerProtocol):
    """Speaks of a message that is too large with the close code that our clients know."""

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, 7.1.7)."""
        if code == CloseCode.MESSAGE_TOO_BIG:
            if self.state is State.OPEN:
                self.send_text(encode(Error(code=ErrorCode.TOO_LARGE, message="the frame is too large")))
            code, reason = closes.TOO_LARGE.code, closes.TOO_LARGE.reason
        super().fail(code, reason)


class Framing:
    """The WebSocket of one connection. Never raises on what a client sends."""

    __slots__ = ("_fragments", "_protocol")

    def __init__(self, max_message_bytes: int) -> None:
        self._protocol = _Protocol(subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=max_message_bytes)
        self._fragments: bytearray | None = None  # joined as they come: empty ones could be sent without end

    def receive(self, data: bytes) -> Iterable[Event]:
        """Take what came from the network; what it means, in order."""
        protocol = self._protocol
        if protocol.state is State.CLOSED:
            return ()
        protocol.receive_data(data)
        events: list[Event] = []
        for event in protocol.events_received():
            if type(event) is Frame:
                self._frame(event, events)
            elif isinstance(event, Request):
                events.append(self._handshake(event))
        return events

    def _frame(self, frame: Frame, events: list[Event]) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT:
            if frame.fin:
                self._text(frame.data, events)
            else:
                self._fragments = bytearray(frame.data)
        elif opcode is Opcode.CONT and self._fragments is not None:
            self._fragments += frame.data
            if frame.fin:
                text, self._fragments = self._fragments, None
                self._text(text, events)
        elif opcode is Opcode.BINARY or opcode is Opcode.CONT:
            self._violate(closes.BAD_FRAME, events)

    def _text(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        """Text is UTF-8 (RFC 6455, 5.6): what is not would break the connection of the peer it is sent on to."""
        try:
            events.append(str(data, "utf-8"))
        except UnicodeDecodeError:
            self._violate(closes.BAD_FRAME, events)

    def _violate(self, close: closes.Close, events: list[Event]) -> None:
        self._fragments = None
        self.close(close.code, close.reason)
        events.append(Violated(close))

    def _handshake(self, request: Request) -> Opened | Refused:
        protocol = self._protocol
        if request.path.partition("?")[0] == PATH:
            response = protocol.accept(request)
        else:
            response = protocol.reject(404, f"WebSockets are at {PATH}\n")
        protocol.send_response(response)
        if response.status_code != 101:
            return Refused()
        return Opened(request.headers.get("Origin"))

    def eof(self) -> None:
        """The client closed its half of the connection."""
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()

    def send(self, text: bytes) -> None:
        """Queue a text message; nothing happens on a connection that is closing."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text)

    def ping(self) -> None:
        """Queue a ping."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")

    def close(self, code: int, reason: str) -> None:
        """Queue a close; the client has to answer it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)

    def to_send(self) -> list[bytes]:
        """What is queued for the network; an empty item at the end means that the connection is to be closed."""
        return self._protocol.data_to_send()

    @property
    def connecting(self) -> bool:
        """Whether the handshake is still to come."""
        return self._protocol.state is State.CONNECTING

    @property
    def closing(self) -> bool:
        """Whether the close has begun, by either end."""
        return self._protocol.state in (State.CLOSING, State.CLOSED)

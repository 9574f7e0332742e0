"""WebSocket framing: parses bytes into messages, and messages into bytes.

Nearly all traffic is complete, unfragmented text frames. This module reads and writes those itself, in half the time of
the library. All else (control frames, fragments, violations) goes to the library, always in whole frames, so it is
never in the middle of one. Compression is not offered: signals are small, and a compressor per connection would
multiply its memory by 60.

One packet can hold 40,000 empty frames, each of which costs as much as a signal. So frames are processed in slices; the
caller returns for the next slice after other connections have had their turn.
"""

from __future__ import annotations

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from signal_node.protocol import close_codes
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.fields import SUBPROTOCOL
from signal_node.protocol.server_frames import Error, encode
from signal_node.transport.events import Event, Violated

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

SLICE_FRAMES = 32
"""Number of frames of one connection that are processed before other connections have their turn."""

_TEXT = 0x81
"""The first byte of a text in one frame."""

_MASKED = 0x80
_SIZE_IN_2, _SIZE_IN_8 = 126, 127
_MASK_BYTES = 4
_SHORTEST = 2 + _MASK_BYTES
"""Size of an empty frame."""

_BINARY = (0x82, 0x02)
_DEFINED = frozenset((0x00, 0x01, _TEXT, 0x80, 0x88, 0x89, 0x8A))
"""The valid first bytes of frames. Others have reserved bits or opcodes, or are fragmented control frames."""

_CONTROL = 0x08

_CONNECTING, _OPEN = State.CONNECTING, State.OPEN
"""Looked up once: comparing with an enum member needs an attribute lookup, which shows in a burst."""


class _Protocol(ServerProtocol):
    """The library's protocol, with our close code for a message that is too large."""

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, 7.1.7)."""
        if code == CloseCode.MESSAGE_TOO_BIG:
            if self.state is State.OPEN:
                self.send_text(
                    encode(Error(code=ErrorCode.TOO_LARGE, message="the frame is larger than the limit"))
                )
            code, reason = close_codes.TOO_LARGE.code, close_codes.TOO_LARGE.reason
        super().fail(code, reason)


def _new_protocol(max_bytes: int, state: State) -> _Protocol:
    return _Protocol(subprotocols=[Subprotocol(SUBPROTOCOL)], state=state, max_size=max_bytes)


class Framing:
    """The frames of one connection. Never raises on what a client sends."""

    __slots__ = (
        "_fragments",
        "_incomplete",
        "_library",
        "_max_bytes",
        "_missing",
        "_outgoing",
        "_slice",
        "_state",
        "behind",
        "other_frames",
    )

    def __init__(self, max_message_bytes: int, slice_frames: int = SLICE_FRAMES) -> None:
        """Process at most `slice_frames` frames at a time."""
        # created on first use, which for most clients is late or never
        self._library: _Protocol | None = None
        self._state = _CONNECTING  # the library's, once there is one
        self._max_bytes = max_message_bytes
        self._slice = range(slice_frames)
        self._incomplete = bytearray()
        self._missing = 0
        self._outgoing: list[bytes] = []
        # joined on arrival, because there is no limit on the number of empty ones
        self._fragments: bytearray | None = None
        self.behind = False  # the last slice may have left whole frames: receive(b"") takes the next one
        self.other_frames = 0  # control frames and fragments of the last slice

    @property
    def _protocol(self) -> _Protocol:
        if self._library is None:
            self._library = _new_protocol(self._max_bytes, self._state)
        return self._library

    def release(self) -> None:
        """The connection is gone. Break the reference cycles of the library's parser, to spare the garbage
        collector.
        """
        if self._library is not None:
            self._library.parser.close()

    def single_text(self, data: bytes) -> str | None:
        """The text, if `data` is exactly one text frame and nothing is pending. Otherwise None: call `receive`.

        A fast path for nearly every packet. `receive` would return the same text.
        """
        if len(data) < _SHORTEST or data[0] != _TEXT or self._state is not _OPEN:
            return None
        if self._incomplete or self._fragments is not None:
            return None
        size, body = data[1] - _MASKED, _SHORTEST
        if size >= _SIZE_IN_2:
            if size == _SIZE_IN_8:
                return None
            size, body = data[2] << 8 | data[3], _SHORTEST + 2
        if len(data) - body != size or size > self._max_bytes:
            return None
        try:
            return apply_mask(data[body:], data[body - _MASK_BYTES : body]).decode()
        except UnicodeDecodeError:
            return None

    def _whole_frames(self, data: bytes, events: list[Event]) -> int:
        """Process a slice of complete frames and keep the rest. Returns the offset of the part for the library."""
        at, end, limit = 0, len(data), self._size_left()
        for _ in self._slice:
            if at >= end or self._state is not _OPEN:
                return at
            first = data[at]
            if first != _TEXT and first not in _DEFINED:
                return self._refuse_frame(first, end, events)
            if end - at < 2:
                return self._keep(data[at:], 0, end)
            size, body = data[at + 1] - _MASKED, at + 2 + _MASK_BYTES
            if size < 0:
                return at  # unmasked: the library refuses it by its header
            if size == _SIZE_IN_2:
                if first & _CONTROL:
                    return self._refuse_frame(first, end, events)
                if end - at < 4:
                    return self._keep(data[at:], 0, end)
                size, body = data[at + 2] << 8 | data[at + 3], body + 2
            elif size == _SIZE_IN_8:
                if first & _CONTROL:
                    return self._refuse_frame(first, end, events)
                if end - at < 10:
                    return self._keep(data[at:], 0, end)
                size, body = int.from_bytes(data[at + 2 : at + 10], "big"), body + 8
            if size > limit:
                return at
            stop = body + size
            if stop > end:
                return self._keep(data[at:], stop - end, end)
            if first == _TEXT and self._fragments is None:
                try:
                    events.append(apply_mask(data[body:stop], data[body - _MASK_BYTES : body]).decode())
                except UnicodeDecodeError:
                    self._violate(close_codes.BAD_FRAME, events)
            else:
                self.other_frames += 1
                self._feed(data[at:stop], events)
                limit = self._size_left()
            at = stop
        if at < end:
            self.behind = True
            return self._keep(data[at:], 0, end)
        return at

    def _size_left(self) -> int:
        """Maximum size of the next frame: fragments of one message count together."""
        return self._max_bytes if self._fragments is None else self._max_bytes - len(self._fragments)

    def _refuse_frame(self, first: int, end: int, events: list[Event]) -> int:
        """Refuse a frame by its first two bytes, without waiting for the rest."""
        if first in _BINARY:
            self._violate(close_codes.BAD_FRAME, events)
        else:
            self._protocol.fail(
                CloseCode.PROTOCOL_ERROR, "reserved bits, a reserved kind or a long control frame"
            )
            self._collect()
        return end

    def _keep(self, incomplete: bytes, missing: int, end: int) -> int:
        """Wait for at least `missing` bytes of a frame, so that small pieces are not parsed again and again."""
        self._incomplete += incomplete
        self._missing = missing
        return end

    def _feed(self, data: bytes, events: list[Event]) -> None:
        """Pass a frame, or invalid data, to the library."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event, events)
        self._collect()

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
            self._violate(close_codes.BAD_FRAME, events)

    def _text(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        """Text must be UTF-8 (RFC 6455, 5.6). Invalid text would break the connection of the peer that receives it."""
        try:
            events.append(str(data, "utf-8"))
        except UnicodeDecodeError:
            self._violate(close_codes.BAD_FRAME, events)

    def _violate(self, close: close_codes.CloseCode, events: list[Event]) -> None:
        self._fragments = None
        self.close(close.code, close.reason)
        events.append(Violated(close))

    def eof(self) -> None:
        """The client closed its half of the connection. The library would raise for an incomplete request."""
        if self._library is None and self._state is State.CONNECTING:
            return
        if self._state is not State.CLOSED:
            self._protocol.receive_eof()
            self._collect()

    def frame(self, text: bytes) -> bytes:
        """The frame of a text message; empty if the connection is closing."""
        if self._state is not _OPEN:
            return b""
        size = len(text)
        return (_HEADS[size] if size < _LISTED else _head(size)) + text

    def send(self, text: bytes) -> None:
        """Queue a text message. Has no effect on a closing connection."""
        if frame := self.frame(text):
            self._outgoing.append(frame)

    def ping(self) -> None:
        """Queue a ping."""
        if self._state is _OPEN:
            self._protocol.send_ping(b"")
            self._collect()

    def close(self, code: int, reason: str) -> None:
        """Queue a close frame and the end of the stream. Further data from the client is ignored."""
        if self._state is _OPEN:
            self._protocol.fail(code, reason)
            self._collect()

    def to_send(self) -> list[bytes]:
        """The data queued for the network. An empty item at the end means: close the connection."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def pending(self) -> bool:
        """Whether data is queued for the network."""
        return bool(self._outgoing)

    def _collect(self) -> None:
        """Queue what the library wants to send, and keep its state in step."""
        self._outgoing += self._protocol.data_to_send()
        self._state = self._protocol.state

    @property
    def ended_by(self) -> str:
        """How the connection ended: the code of our close, `client` if the client closed first, `lost` without a close.

        `handshake` if it never was a WebSocket.
        """
        protocol = self._library
        if self._state is _CONNECTING or (protocol is not None and protocol.handshake_exc is not None):
            return "handshake"
        if protocol is None:
            return "lost"
        if protocol.close_sent is None:
            return "lost" if protocol.close_rcvd is None else "client"
        return "client" if protocol.close_rcvd_then_sent else str(int(protocol.close_sent.code))

    @property
    def connecting(self) -> bool:
        """Whether the handshake is still pending."""
        return self._state is _CONNECTING

    @property
    def closing(self) -> bool:
        """Whether either side has started to close."""
        return self._state in (State.CLOSING, State.CLOSED)


def _head(size: int) -> bytes:
    """The header of a text of `size` bytes."""
    if size < _SIZE_IN_2:
        return bytes((_TEXT, size))
    if size <= 0xFFFF:
        return bytes((_TEXT, _SIZE_IN_2)) + size.to_bytes(2, "big")
    return bytes((_TEXT, _SIZE_IN_8)) + size.to_bytes(8, "big")


_LISTED = 1_024
_HEADS = [_head(size) for size in range(_LISTED)]
"""Precomputed for all sizes of candidates: creating such a header takes longer than writing the payload."""

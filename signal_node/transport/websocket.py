"""The WebSocket of one connection, from the handshake on, based on the Sans-I/O protocol of `websockets`.

`handshake` reads ordinary handshakes and `framing` reads frames. Anything else goes to the library, as a whole request.
Nothing is read after our close, and a frame that its header already disqualifies is refused without its payload.
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.exceptions import InvalidStatus, NegotiationError
from websockets.http11 import Request
from websockets.protocol import State

from signal_node.protocol import close_codes
from signal_node.protocol.fields import SUBPROTOCOL
from signal_node.transport.events import Entrance, Event, Misled, Opened, Refused
from signal_node.transport.framing import SLICE_FRAMES, Framing
from signal_node.transport.handshake import PATH, accept
from signal_node.transport.proxy_header import FIRST_BYTES, BadHeader, read_header

PATHS = (PATH, f"{PATH}/")

MAX_HEAD_BYTES = 16_384
"""Maximum size of the request line and all headers of a handshake."""

RETRY_AFTER_SECONDS = 1
"""When a client that a draining node refuses may retry: soon, because another node accepts it."""

_HEAD_END = b"\r\n\r\n"
_METHOD = b"GET "
_CONNECTING, _OPEN = State.CONNECTING, State.OPEN


class WebSocket(Framing):
    """Processes a client's bytes. Never raises because of them."""

    __slots__ = ("_begun", "_doubtful", "_max_head", "source")

    def __init__(
        self, max_message_bytes: int, max_head_bytes: int = MAX_HEAD_BYTES, slice_frames: int = SLICE_FRAMES
    ) -> None:
        super().__init__(max_message_bytes, slice_frames)
        self._max_head = max_head_bytes
        self._begun = False  # the first bytes were read, so no PROXY header can follow
        self._doubtful = False  # the library has received the beginning of a request
        self.source: str | None = None  # the client's IP address, as reported by a trusted proxy

    def keep(self, data: bytes) -> None:
        """Store received data without processing it; `receive(b"")` does that later."""
        self._incomplete += data
        self._missing -= len(data)
        self.behind = True

    def receive(self, data: bytes, entrance: Entrance | None = None) -> Sequence[Event]:
        """Process a slice of the received data, and return its events in order. Only a handshake uses `entrance`."""
        state = self._state
        if state is not _OPEN and state is not _CONNECTING:
            self.behind = False
            self._incomplete.clear()
            return ()
        if self._incomplete:
            self._incomplete += data
            self._missing -= len(data)
            if self._missing > 0:
                self.behind = False
                return ()
            data, self._incomplete = bytes(self._incomplete), bytearray()
        self.behind = False
        self.other_frames = 0
        events: list[Event] = []
        if state is _OPEN:
            at = self._whole_frames(data, events)
            if at < len(data) and self._state is _OPEN:
                self._feed(data[at:], events)
        elif state is _CONNECTING:
            self._opening(data, entrance, events)
        return events

    def _opening(self, data: bytes, entrance: Entrance | None, events: list[Event]) -> None:
        """Process the handshake when it is complete. A frame sent before the answer (RFC 6455, 4.1) is a protocol
        error.
        """
        if self._library is not None and self._library.handshake_exc is not None:
            return  # answered already
        if not self._begun:
            data = self._past_header(data, entrance, events)
            if not data:
                return
        head = data.find(_HEAD_END) + len(_HEAD_END)
        if head < len(_HEAD_END):
            if not data.startswith(_METHOD[: len(data)]):
                head, self._doubtful = len(data), True  # not a GET: the library refuses it by its first line
            elif len(data) <= self._max_head:
                self._keep(data, 0, 0)
                return
        if head > self._max_head or head < len(_HEAD_END):
            events.append(self._refuse_head())
        else:
            self._shake_hands(data[:head], entrance, events)
            if self._state is _OPEN and head < len(data):
                self._violate(close_codes.BAD_FRAME, events)

    def _shake_hands(self, head: bytes, entrance: Entrance | None, events: list[Event]) -> None:
        draining = entrance is not None and entrance.draining()
        accepted = None if draining or self._doubtful else accept(head)
        if accepted is None:
            self._feed_head(head, entrance, events)
            return
        self._state = _OPEN
        self._outgoing.append(accepted.response)
        events.append(Opened(accepted.origin, accepted.forwarded_for))

    def _feed_head(self, head: bytes, entrance: Entrance | None, events: list[Event]) -> None:
        """Pass a handshake, or invalid data, to the library."""
        protocol = self._protocol
        protocol.receive_data(head)
        for event in protocol.events_received():
            if isinstance(event, Request):
                events.append(self._answer(event, entrance))
        if protocol.state is State.CONNECTING and protocol.handshake_exc is not None and not events:
            events.append(Refused(0, str(protocol.handshake_exc)))
        self._collect()

    def _answer(self, request: Request, entrance: Entrance | None) -> Opened | Refused:
        protocol = self._protocol
        path, why = request.path.partition("?")[0], ""
        if path not in PATHS:
            why = "wrong path"  # not logged, because it may contain secrets of other services
            response = protocol.reject(404, f"not found; connect a WebSocket to {PATH}\n")
        elif entrance is not None and entrance.draining():
            why = "draining"
            response = protocol.reject(503, "this node is draining; connect to another one\n")
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        else:
            response = protocol.accept(request)
            if isinstance(protocol.handshake_exc, NegotiationError):
                why = f"the subprotocol {SUBPROTOCOL} was not offered"
                response = protocol.reject(400, f"{why}: Sec-WebSocket-Protocol must list it\n")
        protocol.send_response(response)
        if response.status_code != 101:
            protocol.handshake_exc = protocol.handshake_exc or InvalidStatus(response)
            return Refused(response.status_code, why or str(protocol.handshake_exc))
        return Opened(request.headers.get("Origin"), ",".join(request.headers.get_all("X-Forwarded-For")))

    def _refuse_head(self) -> Refused:
        protocol = self._protocol
        response = protocol.reject(431, f"the headers have more than {self._max_head:,} bytes together\n")
        protocol.send_response(response)
        protocol.handshake_exc = InvalidStatus(response)
        self._collect()
        return Refused(431, "the headers are too large")

    def _past_header(self, data: bytes, entrance: Entrance | None, events: list[Event]) -> bytes:
        """Process a trusted proxy's PROXY header. Returns the data after it, or nothing while it is incomplete.

        Any other PROXY header is left in place, and refused as a malformed HTTP request.
        """
        size = 0
        if data[:1] in FIRST_BYTES and entrance is not None and entrance.behind_proxy():
            try:
                header = read_header(data)
            except BadHeader as bad:
                events.append(Misled(str(bad)))
            else:
                if header is None:
                    self._keep(data, 0, 0)
                    return b""
                size, self.source = header.size, header.source
        self._begun = True
        return data[size:] if size else data

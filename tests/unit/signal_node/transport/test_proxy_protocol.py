"""Connections that a proxy has passed on with a PROXY header: who may say so, and what it changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from signal_node.limits.address_limits import TOLD_SECONDS
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.refusals import Refusals
from signal_node.protocol.session import Stage
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections
from signal_node.transport.events import Event, Misled, Opened, Refused
from signal_node.transport.proxy_header import MAX_BLOCK
from signal_node.transport.websocket import WebSocket
from tests.unit.signal_node.sockets import Notes, Pipe, StillLoop, new_clients, new_limits
from tests.unit.signal_node.transport.test_proxy_header import (
    BROKEN,
    CLIENT_4,
    CLIENT_6,
    HEADERS,
    PROXY,
    TCP4,
    block,
    packed,
)

OF_A_CLIENT, _ = HEADERS["text, IPv4"]
BINARY, _ = HEADERS["binary, IPv6"]
LOCAL, _ = HEADERS["binary, local"]
TRUSTED_PROXY = "10.0.0.1"


def handshake(*headers: str) -> bytes:
    lines = (
        *("GET /v1 HTTP/1.1", "Host: node", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Protocol: keepline.v1", *headers),
    )
    return "\r\n".join((*lines, "", "")).encode()


HANDSHAKE = handshake()


class Socket:
    """Where a connection comes in; counts how often somebody wants to know from whom."""

    def __init__(self, *, trusted: bool) -> None:
        self.trusted = trusted
        self.asked = 0

    def draining(self) -> bool:
        return False

    def behind_proxy(self) -> bool:
        self.asked += 1
        return self.trusted


def reached(*pieces: bytes, trusted: bool = True) -> tuple[WebSocket, list[Event], Socket]:
    """A framing that has got the pieces, what it made of them, and its socket."""
    websocket, socket = WebSocket(65_536), Socket(trusted=trusted)
    return websocket, [event for piece in pieces for event in websocket.receive(piece, socket)], socket


def said(websocket: WebSocket) -> bytes:
    """The first line of the answer."""
    return b"".join(websocket.to_send()).partition(b"\r\n")[0]


# --- in the framing ---


@pytest.mark.parametrize(("header", "source"), HEADERS.values(), ids=HEADERS)
def test_a_trusted_proxy_says_who_the_client_is(header: bytes, source: str | None) -> None:
    websocket, events, _ = reached(header + HANDSHAKE)
    assert events == [Opened(None)]
    assert websocket.source == source
    assert said(websocket).endswith(b"101 Switching Protocols")


@given(st.sampled_from(sorted(HEADERS)), st.lists(st.integers(1, 2 * MAX_BLOCK)))
def test_headers_are_understood_in_any_pieces(name: str, cuts: list[int]) -> None:
    header, source = HEADERS[name]
    data = header + HANDSHAKE
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    websocket, events, _ = reached(*(data[start:end] for start, end in pairwise(ends)))
    assert (events, websocket.source) == ([Opened(None)], source)


def test_a_header_byte_by_byte() -> None:
    websocket, events, _ = reached(*(bytes((byte,)) for byte in BINARY + HANDSHAKE))
    assert (events, websocket.source) == ([Opened(None)], CLIENT_6)


@pytest.mark.parametrize("header", [header for header, _ in HEADERS.values()], ids=HEADERS)
def test_from_anybody_else_a_header_is_a_broken_request(header: bytes) -> None:
    websocket, events, _ = reached(header + HANDSHAKE, trusted=False)
    assert Opened(None) not in events
    assert websocket.source is None
    assert websocket.to_send() == [b""], "it is closed without an answer"
    assert websocket.ended_by == "handshake"


@pytest.mark.parametrize("trusted", [True, False])
def test_who_sends_no_header_is_not_looked_at(trusted: bool) -> None:
    websocket, events, socket = reached(HANDSHAKE[:1], HANDSHAKE[1:], trusted=trusted)
    assert (events, websocket.source, socket.asked) == ([Opened(None)], None, 0)


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_opens_nothing_whatever_follows(header: bytes) -> None:
    _, events, _ = reached(header, HANDSHAKE, OF_A_CLIENT + HANDSHAKE)
    assert type(events[0]) is Misled
    assert [event for event in events[1:] if not isinstance(event, Refused)] == []


def test_only_the_first_header_counts() -> None:
    websocket, events, _ = reached(OF_A_CLIENT + BINARY + HANDSHAKE)
    assert (Opened(None) in events, websocket.source) == (False, CLIENT_4)
    websocket, events, _ = reached(HANDSHAKE[:16], OF_A_CLIENT, HANDSHAKE[16:])
    assert (Opened(None) in events, websocket.source) == (False, None)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=12), st.booleans())
def test_whatever_comes_first_nothing_is_raised(pieces: list[bytes], trusted: bool) -> None:
    reached(*pieces, trusted=trusted)
    reached(b"PROXY ", *pieces, trusted=trusted)
    reached(BINARY[:14], *pieces, trusted=trusted)


# --- on a node ---


class Node(Notes):
    """Handles connections as a node does that trusts 10.0.0.0/8."""

    def __init__(self, peer: str = TRUSTED_PROXY) -> None:
        super().__init__()
        self.loop = StillLoop()
        self.here: Connections = new_clients(self.loop)
        self.clients = self.here
        self.counted: list[str] = []
        refusals = Refusals(self.here)
        self.limits = new_limits(refusals, self.here, cast(Any, self), cast(FailedLogins, None))
        self.peer = peer

    def trusts(self, connection: Connection) -> bool:
        return self.limits.trusts(connection)

    def misled(self, connection: Connection, why: str) -> None:
        super().misled(connection, why)
        self.limits.misled(connection, why)

    def opened(self, connection: Any, session: str = "") -> Any:
        """Both what a node is told of a connection, and what counts its address."""
        if session:
            self.counted.append(connection)
            return True
        super().opened(connection)
        self.limits.opened(connection)
        return None

    def reached(self, *pieces: bytes) -> tuple[Connection, Pipe]:
        """A connection that has got the pieces, and its socket."""
        connection, pipe = self.here.accept(self), Pipe()
        connection.connection_made(pipe)
        for piece in pieces:
            connection.data_received(piece)
        for _ in range(3):  # its turn, what it did, and what is written of that
            self.loop.tick()
        return connection, pipe


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node()
    monkeypatch.setattr(Pipe, "get_extra_info", lambda *_: (node.peer, 4711))
    return node


@pytest.mark.parametrize(
    ("header", "forwarded", "counted_as"),
    [
        (OF_A_CLIENT, "", CLIENT_4),
        (BINARY, "", "2001:db8:1:2::/64"),
        (OF_A_CLIENT, "203.0.113.5", CLIENT_4),
        (block(PROXY, TCP4, packed("10.9.9.9")), "203.0.113.5", "203.0.113.5"),
        (LOCAL, "", TRUSTED_PROXY),
        (LOCAL, "203.0.113.5", "203.0.113.5"),
        (b"", "203.0.113.5", "203.0.113.5"),
    ],
    ids=[
        "the client",
        "its network",
        "what a client writes is not believed",
        "what a second trusted proxy writes is",
        "the proxy itself",
        "the proxy itself, for somebody",
        "no header",
    ],
)
def test_limits_count_by_the_clients_address(
    node: Node, header: bytes, forwarded: str, counted_as: str
) -> None:
    request = handshake(f"X-Forwarded-For: {forwarded}") if forwarded else HANDSHAKE
    connection, _ = node.reached(header + request)
    assert connection.address == counted_as
    assert node.counted[0] == counted_as


def test_from_anybody_else_a_header_is_closed_and_not_logged(node: Node) -> None:
    node.peer = "203.0.113.9"
    with capture_logs() as logs:
        connection, pipe = node.reached(OF_A_CLIENT + HANDSHAKE)
    assert (b"".join(pipe.writes), pipe.ended, connection.address, node.misled_by, logs) == (
        b"",
        True,
        None,
        [],
        [],
    )


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_is_dropped_without_an_answer(node: Node, header: bytes) -> None:
    connection, pipe = node.reached(header + HANDSHAKE)
    assert (pipe.aborted, pipe.writes) == (True, [])
    assert len(node.misled_by) == 1
    connection.connection_lost(None)
    assert connection.session.stage is Stage.CLOSED
    assert node.here.closed_ones == {"handshake": 1}
    assert (len(node.here), node.here.opened_ones) == (0, 0)


def test_a_proxy_that_cannot_be_understood_is_told_of_once_in_a_while(node: Node) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            node.reached(b"PROXY \r\n")
        node.loop.now += TOLD_SECONDS
        node.reached(b"PROXY \r\n")
    assert [(line["event"], line["proxy"]) for line in logs] == 2 * [
        ("proxy_header_unreadable", TRUSTED_PROXY)
    ]
    assert len(node.misled_by) == 4


@pytest.mark.parametrize("header", [OF_A_CLIENT[:20], BINARY[:20], BINARY])
def test_a_header_has_to_come_within_the_time_for_the_handshake(node: Node, header: bytes) -> None:
    connection, pipe = node.reached(header)
    node.here.sweep(connection, node.loop.now + 5.0)
    assert not pipe.aborted
    node.here.sweep(connection, node.loop.now + 5.1)
    assert pipe.aborted

"""Connections and the clients of a node: what is written when, and who is closed for what."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.protocol import State

from keepline.ops.origins import Origins
from signal_node.protocol import close_codes
from signal_node.protocol.effects import Act, Authenticate, JoinRequest, Relay
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.server_frames import Ok, encode
from signal_node.transport.connection import CLOSE_SECONDS
from signal_node.transport.connections import Connections, new_session_id
from signal_node.transport.outgoing import MAX_HELD_FRAMES
from tests.unit.signal_node.calls import ROOM, USER_1
from tests.unit.signal_node.sockets import Browser, Notes, StillLoop, new_clients

OK = encode(Ok())
OURS = ("Connection", "Session", "WebSocket", "_Protocol")
HELLO = {"type": "hello", "token": "t"}
SIGNAL = {"type": "signal", "room": ROOM, "data": {"candidate": None}}


@dataclass
class Node:
    """A node's clients, with a handler that notes."""

    clients: Connections
    loop: StillLoop
    notes: Notes = field(default_factory=Notes)

    def browser(self, **options: Any) -> Browser:
        return Browser(self.clients, self.notes, self.loop, **options)

    def ready(self) -> Browser:
        browser = self.browser()
        browser.is_ready(USER_1)
        return browser

    def call(self) -> tuple[Browser, Browser]:
        """A client that holds a side, and its peer, who gets what it sends."""
        browser, peer = self.ready(), self.ready()
        browser.connection.session.rooms.hold(ROOM, 1)
        self.notes.forwards_to = peer.connection
        return browser, peer

    def sweep(self, seconds: float) -> None:
        """Let so much time pass, then look after all connections."""
        self.loop.now += seconds
        for connection in self.clients:
            self.clients.sweep(connection, self.loop.now)
        self.loop.tick()


def new_node(**settings: Any) -> Node:
    loop = StillLoop()
    node = Node(new_clients(loop, **settings), loop)
    node.notes.clients = node.clients
    return node


@pytest.fixture
def node() -> Node:
    return new_node()


# --- coming and going ---


def alive() -> Counter[str]:
    """How many there are of what each connection has."""
    return Counter(type(each).__qualname__ for each in gc.get_objects() if type(each).__qualname__ in OURS)


def test_who_has_gone_leaves_no_garbage_in_cycles(node: Node) -> None:
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(3):
            browser = node.ready()
            browser.send({"type": "ping"})
            browser.connection.ping(0.0)
            browser.drop()
        node.notes.closed_ones.clear()
        node.loop.tick()
        del browser
        assert alive() == before, (
            "what is left would stay until everything is looked at, which is an hour away"
        )
    finally:
        gc.enable()


def test_a_connection_counts_once_its_handshake_is_done(node: Node) -> None:
    silent = node.browser(open=False)
    assert len(node.clients) == 0
    assert list(node.clients) == [silent.connection]
    browser = node.browser()
    assert len(node.clients) == 1
    assert node.clients.get(browser.session) is browser.connection
    browser.drop()
    silent.drop()
    assert (len(node.clients), list(node.clients)) == (0, [])
    assert node.notes.closed_ones == [browser.connection, silent.connection]


def test_sessions_have_names_of_16_characters_that_differ() -> None:
    names = {new_session_id() for _ in range(1000)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {16}


def test_a_user_is_found_by_the_session_that_took_it_last(node: Node) -> None:
    first, second = node.ready(), node.ready()
    node.clients.took(USER_1, first.session)
    node.clients.took(USER_1, second.session)
    first.drop()
    assert node.clients.session_of(USER_1) == second.session
    second.drop()
    assert node.clients.session_of(USER_1) is None


def test_what_is_forwarded_to_a_session_that_is_not_here_is_not_written(node: Node) -> None:
    browser = node.ready()
    assert node.clients.forward(browser.session, OK)
    assert browser.frames() == [{"type": "ok"}]
    browser.drop()
    assert not node.clients.forward(browser.session, OK)


@pytest.mark.parametrize(
    ("origin", "refused"),
    [(None, False), ("https://app.example", False), ("https://evil.example", True), ("null", True)],
)
def test_browsers_come_from_listed_origins_only(node: Node, origin: str | None, *, refused: bool) -> None:
    browser = Browser(node.clients, node.notes, node.loop, origin=origin)
    assert (browser.protocol.close_rcvd is not None) is refused
    if refused:
        assert browser.protocol.close_rcvd is not None
        assert browser.protocol.close_rcvd.code == 4403
    assert node.notes.refusals == ([(403, origin)] if refused else [])
    browser.protocol.state = State.OPEN  # a client that does not care for our close
    browser.send(HELLO)
    assert bool(node.notes.begun) is not refused


def test_a_star_lets_every_origin_in() -> None:
    node = new_node(origins=Origins(["*"]))
    browser = node.browser(origin="https://any.example")
    assert browser.protocol.close_rcvd is None


def test_a_draining_node_sends_who_comes_elsewhere_and_holds_nothing_for_it(node: Node) -> None:
    early = node.browser(open=False)
    node.notes.leaving = True
    for browser in (early, node.browser(open=False)):
        browser.protocol.send_request(browser.protocol.connect())
        browser.send()
        assert browser.frames() == []
        refusal = browser.protocol.handshake_exc
        assert isinstance(refusal, InvalidStatus)
        assert (refusal.response.status_code, refusal.response.headers["Retry-After"]) == (503, "1")
        assert browser.pipe.ended, "a load balancer need not wait for more"
        browser.connection.eof_received()
        browser.drop()
    assert (len(node.clients), list(node.clients), node.clients.opened_ones) == (0, [], 0)
    assert node.clients.closed_ones == {"handshake": 2}
    node.notes.leaving = False
    assert node.browser().protocol.state is State.OPEN


def test_who_was_there_before_the_drain_stays(node: Node) -> None:
    browser = node.browser()
    node.notes.leaving = True
    browser.send(HELLO)
    assert isinstance(node.notes.begun[0], Authenticate)


# --- frames in ---


def test_what_a_session_decides_is_handed_on_in_order(node: Node) -> None:
    browser = node.browser()
    browser.send(HELLO)
    browser.is_ready(USER_1)
    browser.connection.session.rooms.hold(ROOM, 1)
    browser.send(
        {"type": "typing", "room": ROOM},
        {"type": "join", "room": ROOM, "id": "1"},
        {"type": "leave", "room": ROOM},
        {"type": "nonsense"},
    )
    authenticate, join, leave = node.notes.begun
    assert isinstance(authenticate, Authenticate)
    assert isinstance(join, JoinRequest)
    assert isinstance(leave, Act)
    assert node.notes.relayed == [Relay(ROOM, 1, f'{{"type":"typing","room":"{ROOM}"}}'.encode())]
    assert [frame["code"] for frame in browser.frames()] == ["unknown_type"]


def test_nothing_is_heard_after_a_breach_in_the_same_packet(node: Node) -> None:
    browser = node.ready()
    browser.connection.session.rooms.hold(ROOM, 1)
    browser.protocol.send_binary(b"{}")
    browser.send({"type": "typing", "room": ROOM})
    assert node.notes.relayed == []
    assert browser.frames() == [4400]


def test_an_error_comes_before_the_close_that_it_explains(node: Node) -> None:
    browser = node.browser()
    browser.send({"type": "join", "room": ROOM})
    error, close = browser.frames()
    assert (error["code"], close) == ("unauthorized", 4401)


# --- frames out ---


def test_what_is_written_within_a_tick_leaves_in_one_write(node: Node) -> None:
    browser, other = node.ready(), node.ready()
    before = len(browser.pipe.writes)
    for _ in range(5):
        node.clients.forward(browser.session, OK)
        browser.connection.write(OK)
        node.clients.forward(other.session, OK)
    assert len(browser.pipe.writes) == before, "nothing before the tick is over"
    node.loop.tick()
    assert len(browser.pipe.writes) == before + 1
    assert len(browser.frames()) == 10
    assert len(other.frames()) == 5
    node.loop.tick()
    assert len(browser.pipe.writes) == before + 1


def test_what_a_frame_by_itself_asks_for_does_not_wait_for_the_end_of_the_tick(node: Node) -> None:
    browser, peer = node.call()
    before = len(peer.pipe.writes)
    browser.packet(SIGNAL)
    assert len(peer.pipe.writes) == before + 1
    assert peer.frames() == [SIGNAL]
    assert len(peer.pipe.writes) == before + 1


def test_the_frames_of_a_packet_leave_in_one_write(node: Node) -> None:
    browser, peer = node.call()
    before = len(peer.pipe.writes)
    browser.packet(SIGNAL, SIGNAL, SIGNAL)
    assert len(peer.pipe.writes) == before
    assert peer.frames() == [SIGNAL] * 3
    assert len(peer.pipe.writes) == before + 1


def test_a_frame_by_itself_is_written_after_what_waits_for_the_end_of_the_tick(node: Node) -> None:
    browser, peer = node.call()
    node.clients.forward(peer.session, OK)
    browser.packet(SIGNAL)
    assert peer.frames() == [{"type": "ok"}, SIGNAL]


def test_frames_of_the_room_wait_for_the_answer_to_a_join(node: Node) -> None:
    browser = node.ready()
    browser.connection.outgoing.hold_back()
    browser.connection.outgoing.hold_back()
    node.clients.forward(browser.session, b'{"type":"peer"}')
    browser.connection.write(b'{"type":"joined"}')
    browser.connection.answered()
    assert [frame["type"] for frame in browser.frames()] == ["joined"], "another join is still on its way"
    browser.connection.write(b'{"type":"joined"}')
    browser.connection.answered()
    node.clients.forward(browser.session, b'{"type":"chat"}')
    assert [frame["type"] for frame in browser.frames()] == ["joined", "peer", "chat"]


def test_only_so_many_frames_are_held_back(node: Node) -> None:
    browser = node.ready()
    browser.connection.outgoing.hold_back()
    for _ in range(MAX_HELD_FRAMES + 1):
        node.clients.forward(browser.session, OK)
    browser.connection.answered()
    assert len(browser.frames()) == MAX_HELD_FRAMES


def test_a_client_that_does_not_read_has_to_go(node: Node) -> None:
    browser = node.ready()
    assert browser.pipe.high == 2 * 1_048_576
    browser.connection.pause_writing()
    browser.connection.pause_writing()
    node.clients.forward(browser.session, OK)
    assert browser.frames() == [4508]
    assert browser.connection.closed_as is close_codes.TOO_SLOW


def test_peers_have_to_wait_for_a_client_that_reads_slowly(node: Node) -> None:
    """Who sends too much to somebody is refused; the one who cannot read it stays."""
    browser = node.ready()
    assert browser.connection.outgoing.relay(b"x" * 600_000)
    assert browser.connection.outgoing.relay(b"x" * 600_000), "the limit was not reached before"
    browser.pipe.unread = 1_200_000
    assert not browser.connection.outgoing.relay(OK)
    node.clients.forward(browser.session, OK)  # what the room says comes all the same
    node.loop.tick()
    assert not browser.connection.outgoing.relay(OK)
    browser.pipe.unread = 1_000_000
    assert browser.connection.outgoing.relay(OK)
    browser.pipe.unread = 1_100_000
    assert browser.connection.outgoing.relay(b"x" * 100_000), "it is not looked at with each frame"
    assert not browser.connection.outgoing.relay(OK)
    assert browser.connection.closed_as is None


def test_a_long_chat_may_wait_beside_what_else_may(node: Node) -> None:
    """A full chat can be larger than the limit; who asked for it and has yet to read it is not slow."""
    browser = node.ready()
    browser.connection.write(b"[" + b" " * 2_000_000 + b"]")
    assert browser.pipe.high == 2 * 1_048_576 + 2_000_002
    browser.connection.write(b"[" + b" " * 1_000_000 + b"]")
    assert browser.pipe.high == 2 * 1_048_576 + 2_000_002, (
        "only the largest counts, or one could ask for ever"
    )


def test_the_stream_ends_after_the_close_but_is_not_torn_down(node: Node) -> None:
    """A reset for what the client still sends could overtake the close frame."""
    browser = node.ready()
    browser.connection.close(close_codes.DRAINING)
    assert browser.frames() == [4503]
    assert browser.pipe.ended, "nothing else is to come"
    browser.answer()
    assert not browser.pipe.aborted


def test_over_tls_there_is_no_half_close(node: Node) -> None:
    browser = node.ready()
    browser.pipe.half_close = False
    browser.connection.close(close_codes.DRAINING)
    browser.frames()
    assert not browser.pipe.closed
    browser.answer()
    assert not browser.pipe.ended
    assert browser.pipe.closed, "the client has answered, and waits for the end"


def test_nothing_is_written_to_a_connection_that_is_gone(node: Node) -> None:
    browser = node.ready()
    browser.drop()
    written = len(browser.pipe.writes)
    browser.connection.write(OK)
    browser.connection.close(close_codes.DRAINING)
    browser.connection.abort()
    node.loop.tick()
    assert len(browser.pipe.writes) == written
    assert not browser.pipe.aborted


def test_the_end_of_the_clients_stream_ends_the_connection(node: Node) -> None:
    browser = node.ready()
    assert not browser.connection.eof_received(), "asyncio is to close the transport"
    assert browser.connection.websocket.closing


# --- the sweep ---


def test_who_says_no_hello_is_closed(node: Node) -> None:
    browser = node.browser()
    node.sweep(5.0)
    assert browser.frames() == []
    node.sweep(0.1)
    assert browser.frames() == [4408]


def test_who_has_said_hello_does_not_pay_for_a_slow_answer(node: Node) -> None:
    browser = node.browser()
    browser.send(HELLO)
    node.sweep(5.1)
    assert browser.frames() == [], "deciding has time limits of its own"


def test_who_does_no_handshake_is_dropped(node: Node) -> None:
    browser = node.browser(open=False)
    node.sweep(5.0)
    assert not browser.pipe.aborted
    node.sweep(0.1)
    assert browser.pipe.aborted


def test_a_silent_client_is_pinged_and_dropped_when_it_stays_silent(node: Node) -> None:
    browser = node.ready()
    node.sweep(20.0)
    assert browser.frames() == []
    node.sweep(0.1)
    assert browser.frames() == ["ping"]
    node.sweep(20.0)
    assert not browser.pipe.aborted
    assert browser.frames() == [], "one ping is enough"
    node.sweep(0.1)
    assert browser.pipe.aborted


def test_a_pong_keeps_the_connection_until_the_next_ping(node: Node) -> None:
    browser = node.ready()
    for _ in range(3):
        node.sweep(20.1)
        assert browser.frames() == ["ping"]
        node.loop.now += 10
        browser.answer()
    node.sweep(19)
    assert browser.frames() == []
    assert not browser.pipe.aborted


def test_whoever_speaks_needs_no_ping(node: Node) -> None:
    browser = node.ready()
    for _ in range(5):
        node.sweep(15)
        browser.send({"type": "typing", "room": ROOM})
    assert "ping" not in browser.frames()


def test_a_close_that_is_not_answered_is_not_waited_for(node: Node) -> None:
    browser = node.ready()
    browser.connection.close(close_codes.DRAINING)
    node.sweep(0)
    node.sweep(CLOSE_SECONDS)
    assert not browser.pipe.aborted
    node.sweep(0.1)
    assert browser.pipe.aborted


def test_a_client_that_breaks_the_framing_is_dropped_in_the_end(node: Node) -> None:
    browser = node.ready()
    browser.connection.data_received(b"\x83\x80\0\0\0\0")
    node.loop.tick()
    node.sweep(0)
    node.sweep(CLOSE_SECONDS + 0.1)
    assert browser.pipe.aborted


# --- what is counted ---


def test_how_connections_end_is_counted(node: Node) -> None:
    lost, closed, replaced, absent = node.ready(), node.ready(), node.ready(), node.browser(open=False)
    lost.drop()
    closed.protocol.send_close(1000)
    closed.send()
    closed.drop()
    replaced.connection.close(close_codes.REPLACED)
    replaced.frames()
    replaced.answer()
    replaced.drop()
    absent.drop()
    assert node.clients.closed_ones == {"lost": 1, "client": 1, "4409": 1, "handshake": 1}
    assert node.clients.opened_ones == 3


def test_the_errors_of_all_sessions_are_counted_together(node: Node) -> None:
    for _ in range(2):
        node.ready().send({"type": "typing", "room": ROOM}, {"type": "nonsense"})
    assert node.clients.errors == {ErrorCode.NOT_A_MEMBER: 2, ErrorCode.UNKNOWN_TYPE: 2}

"""Framing against the client's half of the same protocol, without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from signal_node.protocol import close_codes
from signal_node.transport.events import Event, Opened, Refused, Violated
from signal_node.transport.framing import SLICE_FRAMES
from signal_node.transport.websocket import WebSocket

MAX = 1024


def all_of(websocket: WebSocket, data: bytes) -> list[Event]:
    """What a packet means, read slice by slice."""
    events = list(websocket.receive(data))
    while websocket.behind:
        events += websocket.receive(b"")
    return events


class Wire:
    """A client and a node's websocket, joined by hand."""

    def __init__(
        self,
        path: str = "/v1",
        subprotocols: Sequence[str] = ("keepline.v1",),
        origin: str | None = None,
        max_bytes: int = MAX,
    ) -> None:
        self.websocket = WebSocket(max_bytes)
        self.client = ClientProtocol(
            parse_uri(f"ws://127.0.0.1{path}"),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            origin=None if origin is None else Origin(origin),
        )
        self.client.send_request(self.client.connect())
        self.opening = self.deliver()
        self.back()

    def deliver(self) -> list[Event]:
        """What the client has to send reaches the node, byte by byte: nothing may depend on packets."""
        events: list[Event] = []
        for byte in b"".join(self.client.data_to_send()):
            events += self.websocket.receive(bytes((byte,)))
        return events

    def back(self) -> list[Frame]:
        """What the node has to send reaches the client; the frames of it."""
        for data in self.websocket.to_send():
            if data:
                self.client.receive_data(data)
        return [event for event in self.client.events_received() if isinstance(event, Frame)]

    def frame(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> list[Event]:
        """Send one frame, right or wrong."""
        self.client.writes.append(Frame(opcode, data, fin=fin).serialize(mask=True))
        return self.deliver()

    @property
    def close(self) -> Close | None:
        """The close that the client got."""
        self.back()
        return self.client.close_rcvd


def test_the_handshake_takes_our_subprotocol_and_names_the_origin() -> None:
    wire = Wire(origin="https://app.example")
    assert wire.opening == [Opened("https://app.example")]
    assert wire.client.state is State.OPEN
    assert wire.client.subprotocol == "keepline.v1"
    assert wire.client.extensions == []


def test_outside_of_browsers_there_is_no_origin() -> None:
    assert Wire().opening == [Opened(None)]


def test_the_room_in_the_path_is_a_hint_for_others() -> None:
    assert Wire("/v1?room=7f4e6f0e").opening == [Opened(None)]


def test_the_subprotocol_may_be_one_of_several() -> None:
    assert Wire(subprotocols=["keepline.v9", "keepline.v1"]).client.subprotocol == "keepline.v1"


@pytest.mark.parametrize("path", ["/v1/", "/v1/?room=7f4e6f0e"])
def test_a_slash_at_the_end_does_no_harm(path: str) -> None:
    assert Wire(path).opening == [Opened(None)]


@pytest.mark.parametrize("path", ["/", "/v2", "/v1//", "/V1", "//v1", "/v1x"])
def test_another_path_is_not_found(path: str) -> None:
    wire = Wire(path)
    assert wire.opening == [Refused(404, "wrong path")]
    assert refused_with(wire) == 404
    wire.websocket.eof()
    assert wire.websocket.ended_by == "handshake"


@pytest.mark.parametrize("subprotocols", [[], ["keepline.v2"], ["KEEPLINE.V1"]])
def test_without_our_subprotocol_there_is_no_connection(subprotocols: list[str]) -> None:
    wire = Wire(subprotocols=subprotocols)
    assert wire.opening == [Refused(400, "the subprotocol keepline.v1 was not offered")]
    assert refused_with(wire) == 400
    assert isinstance(wire.client.handshake_exc, InvalidStatus)
    assert b"keepline.v1" in bytes(wire.client.handshake_exc.response.body or b"")


REQUEST = (
    b"GET /v1 HTTP/1.1\r\nHost: keepline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)


@pytest.mark.parametrize("behind", [b"x\n", b"\n", b"\x81", b"\x89\x80\0\0\0\0"])
def test_what_does_not_wait_for_the_answer_to_the_handshake_is_a_breach(behind: bytes) -> None:
    websocket = WebSocket(MAX)
    assert websocket.receive(REQUEST + behind) == [Opened(None), Violated(close_codes.BAD_FRAME)]
    assert websocket.closing


@pytest.mark.parametrize("behind", [b"x\n", b"\0" * 20, REQUEST])
def test_bytes_behind_a_refused_request_do_no_harm(behind: bytes) -> None:
    websocket = WebSocket(MAX)
    assert websocket.receive(REQUEST.replace(b"/v1", b"/v2") + behind) == [Refused(404, "wrong path")]
    assert websocket.receive(behind) == []
    answer, end = websocket.to_send()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert end == b""


def test_headers_are_bounded_together_and_in_any_pieces() -> None:
    head = REQUEST.replace(b"Host:", b"X: y\r\n" * 100 + b"Host:")
    assert WebSocket(MAX, len(head)).receive(head) == [Opened(None)]
    assert WebSocket(MAX, len(head) - 1).receive(head) == [Refused(431, "the headers are too large")]
    endless = WebSocket(MAX, 2_000)
    events = list(endless.receive(b"GET /v1 HTTP/1.1\r\n"))
    for _ in range(300):
        events += endless.receive(b"X: yyyy\r\n")
    assert events == [Refused(431, "the headers are too large")]
    assert endless.to_send()[0].startswith(b"HTTP/1.1 431 ")


def refused_with(wire: Wire) -> int:
    (refused,) = wire.opening
    assert isinstance(refused, Refused)
    assert not list(wire.websocket.receive(b"more"))
    wire.client.receive_eof()
    refusal = wire.client.handshake_exc
    assert isinstance(refusal, InvalidStatus)
    assert isinstance(refusal.response, Response)
    return refusal.response.status_code


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1 HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_no_handshake_is_answered_and_over(garbage: bytes) -> None:
    websocket = WebSocket(MAX)
    assert all(isinstance(event, Refused) for event in websocket.receive(garbage))
    websocket.eof()
    websocket.to_send()
    assert not list(websocket.receive(b"more"))
    assert websocket.closing


def test_a_text_is_one_message() -> None:
    wire = Wire()
    wire.client.send_text("häl".encode())
    wire.client.send_text(b"lo")
    assert wire.deliver() == ["häl", "lo"]


SOME_FRAMES = [
    Frame(Opcode.TEXT, b""),
    Frame(Opcode.TEXT, b"short"),
    Frame(Opcode.TEXT, b"m" * 126),
    Frame(Opcode.TEXT, b"l" * MAX),
    Frame(Opcode.PING, b"ping"),
    Frame(Opcode.PONG, b""),
]


@given(st.lists(st.sampled_from(SOME_FRAMES), max_size=6), st.lists(st.integers(1, 2 * MAX), max_size=6))
def test_frames_mean_the_same_however_they_are_cut_into_packets(
    frames: list[Frame], sizes: list[int]
) -> None:
    wire = Wire()
    stream = b"".join(frame.serialize(mask=True) for frame in frames)
    events: list[Event] = []
    for size in [*sizes, len(stream)]:
        packet, stream = stream[:size], stream[size:]
        events += wire.websocket.receive(packet)
    assert events == [bytes(frame.data).decode() for frame in frames if frame.opcode is Opcode.TEXT]
    pings = sum(frame.opcode is Opcode.PING for frame in frames)
    assert [frame.opcode for frame in wire.back()] == [Opcode.PONG] * pings


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 100_000])
def test_messages_of_every_size_go_both_ways(size: int) -> None:
    wire = Wire(max_bytes=100_000)
    wire.client.send_text(b"x" * size)
    (data,) = wire.client.data_to_send()
    assert wire.websocket.receive(data) == ["x" * size]
    wire.websocket.send(b"y" * size)
    (frame,) = wire.back()
    assert bytes(frame.data) == b"y" * size


def test_who_does_not_wait_for_the_handshake_is_refused() -> None:
    client = ClientProtocol(parse_uri("ws://127.0.0.1/v1"), subprotocols=[Subprotocol("keepline.v1")])
    client.send_request(client.connect())
    early = Frame(Opcode.TEXT, b"early").serialize(mask=True)
    websocket = WebSocket(MAX)
    events = websocket.receive(b"".join(client.data_to_send()) + early[:7])
    assert events == [Opened(None), Violated(close_codes.BAD_FRAME)]
    assert websocket.closing


def test_a_close_ends_the_hearing_in_the_middle_of_a_packet() -> None:
    wire = Wire()
    late = Frame(Opcode.TEXT, b"late").serialize(mask=True)
    assert wire.websocket.receive(Frame(Opcode.CLOSE, b"").serialize(mask=True) + late) == []
    assert wire.close is not None


def test_what_answers_a_ping_and_what_is_sent_keep_their_order() -> None:
    wire = Wire()
    wire.websocket.send(b"1")
    wire.client.send_ping(b"2")
    wire.deliver()
    wire.websocket.send(b"3")
    assert wire.websocket.pending
    assert [bytes(frame.data) for frame in wire.back()] == [b"1", b"2", b"3"]
    assert not wire.websocket.pending


def test_fragments_are_put_together() -> None:
    wire = Wire()
    assert wire.frame(Opcode.TEXT, "hä".encode()[:2], fin=False) == []
    assert wire.frame(Opcode.CONT, "hä".encode()[2:], fin=False) == []
    assert wire.frame(Opcode.PING, b"meanwhile") == []
    assert wire.frame(Opcode.CONT, b"", fin=False) == []
    assert wire.frame(Opcode.CONT, b"!") == ["hä!"]
    assert wire.frame(Opcode.TEXT, b"next") == ["next"]
    assert [(frame.opcode, bytes(frame.data)) for frame in wire.back()] == [(Opcode.PONG, b"meanwhile")]


def test_empty_fragments_without_end_take_no_memory() -> None:
    wire = Wire()
    wire.frame(Opcode.TEXT, b"x", fin=False)
    many = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 20_000
    assert all_of(wire.websocket, many) == []
    kept = wire.websocket._fragments
    assert kept is not None
    assert len(kept) == 1
    assert wire.frame(Opcode.CONT, b"") == ["x"]


def test_a_message_may_be_as_large_as_the_limit() -> None:
    wire = Wire()
    assert wire.frame(Opcode.TEXT, b"x" * MAX) == ["x" * MAX]
    wire.frame(Opcode.TEXT, b"x" * (MAX - 1), fin=False)
    assert wire.frame(Opcode.CONT, b"y") == ["x" * (MAX - 1) + "y"]


@pytest.mark.parametrize("fragments", [[MAX + 1], [MAX, 1], [MAX // 2, MAX // 2, 1], [1, MAX]])
def test_a_message_that_is_too_large_is_named_before_the_close(fragments: list[int]) -> None:
    wire = Wire()
    events: list[Event] = []
    for number, size in enumerate(fragments):
        opcode, last = Opcode.CONT if number else Opcode.TEXT, number == len(fragments) - 1
        events += wire.frame(opcode, b"x" * size, fin=last)
    assert not [event for event in events if isinstance(event, str)]
    error, close = wire.back()
    assert json.loads(bytes(error.data))["code"] == "too_large"
    assert close.opcode is Opcode.CLOSE
    assert wire.close == Close(4413, "frame too large")
    assert wire.websocket.closing


@pytest.mark.parametrize("fragmented", [False, True])
def test_binary_is_not_of_this_protocol(*, fragmented: bool) -> None:
    wire = Wire()
    assert wire.frame(Opcode.BINARY, b"{}", fin=not fragmented) == [Violated(close_codes.BAD_FRAME)]
    assert wire.close == Close(4400, "bad frame")


@pytest.mark.parametrize("fragments", [[b"\xff"], [b"\xc3", b"("], [b"ok", b"\xc3"], [b"\xed\xa0\x80"]])
def test_text_that_is_no_utf_8_ends_the_connection(fragments: list[bytes]) -> None:
    """Forwarded, it would end the connection of the peer instead."""
    wire = Wire()
    events: list[Event] = []
    for number, data in enumerate(fragments):
        opcode, last = Opcode.CONT if number else Opcode.TEXT, number == len(fragments) - 1
        events += wire.frame(opcode, data, fin=last)
    assert events == [Violated(close_codes.BAD_FRAME)]
    assert wire.close == Close(4400, "bad frame")


def test_breaches_of_the_framing_itself_end_the_connection() -> None:
    masked = bytes(4)
    breaches = {
        "a continuation of nothing": bytes((0x80, 0x80)) + masked,
        "a fragmented ping": bytes((0x09, 0x80)) + masked,
        "a text within a text": bytes((0x01, 0x80)) + masked + bytes((0x81, 0x80)) + masked,
        "a text that is not masked": bytes((0x81, 0x00)),
        "a reserved bit": bytes((0xC1, 0x80)) + masked,
        "a reserved opcode": bytes((0x83, 0x80)) + masked,
    }
    for breach, data in breaches.items():
        wire = Wire()
        assert wire.websocket.receive(data) == [], breach
        assert wire.close is not None, breach
        assert wire.close.code == 1002, breach


def test_a_ping_is_answered_and_a_pong_taken_in_silence() -> None:
    wire = Wire()
    wire.client.send_ping(b"are you there")
    assert wire.deliver() == []
    (pong,) = wire.back()
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"are you there")
    wire.websocket.ping()
    (ping,) = wire.back()
    assert ping.opcode is Opcode.PING
    assert wire.deliver() == []


def test_what_is_sent_arrives() -> None:
    wire = Wire()
    wire.websocket.send(b'{"type":"ok"}')
    (frame,) = wire.back()
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, b'{"type":"ok"}')


def test_nothing_is_sent_before_the_handshake_or_after_the_close() -> None:
    fresh = WebSocket(MAX)
    fresh.send(b"early")
    fresh.ping()
    fresh.close(4400, "early")
    assert fresh.to_send() == []
    assert fresh.connecting
    assert not fresh.closing
    wire = Wire()
    wire.websocket.close(4503, "draining")
    wire.websocket.send(b"late")
    wire.websocket.ping()
    wire.websocket.close(4400, "late")
    (only,) = wire.back()
    assert only.opcode is Opcode.CLOSE
    assert wire.close == Close(4503, "draining")


def test_the_answer_to_our_close_lets_the_connection_end() -> None:
    wire = Wire()
    wire.websocket.close(4503, "draining")
    assert wire.websocket.to_send()[-1] == b"", "an empty item asks for the end of the stream"
    assert wire.websocket.closing
    assert wire.websocket.ended_by == "4503"


def test_nothing_is_read_after_our_close() -> None:
    wire = Wire()
    wire.websocket.close(4429, "rate limited")
    wire.back()
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    assert wire.websocket.receive(ping * 1_000 + Frame(Opcode.TEXT, b"late").serialize(mask=True)) == ()
    assert not wire.websocket.pending, "no pong"
    assert not wire.websocket.behind, "and nothing is kept"


def test_nothing_is_read_behind_a_breach_in_the_same_packet() -> None:
    wire = Wire()
    late = Frame(Opcode.TEXT, b"late").serialize(mask=True) * 100
    assert wire.websocket.receive(b"\x82\x80" + late) == [Violated(close_codes.BAD_FRAME)]
    assert not wire.websocket.behind


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING, Opcode.PONG])
def test_one_packet_is_read_in_slices(opcode: Opcode) -> None:
    wire = Wire()
    data = Frame(opcode, b"").serialize(mask=True) * (3 * SLICE_FRAMES) + b"\x81"
    slices = [wire.websocket.receive(data)]
    others = [wire.websocket.other_frames]
    while wire.websocket.behind:
        slices.append(wire.websocket.receive(b""))
        others.append(wire.websocket.other_frames)
    texts = SLICE_FRAMES if opcode is Opcode.TEXT else 0
    assert [len(events) for events in slices] == [texts, texts, texts, 0]
    assert others == [*[SLICE_FRAMES - texts] * 3, 0]
    assert wire.websocket.receive(b"\x80\0\0\0\0") == [""], "the rest was kept"


def test_what_comes_while_a_rest_is_kept_is_read_after_it() -> None:
    wire = Wire()
    first = [Frame(Opcode.TEXT, b"%d" % n).serialize(mask=True) for n in range(SLICE_FRAMES + 1)]
    last = Frame(Opcode.TEXT, b"last").serialize(mask=True)
    assert len(wire.websocket.receive(b"".join(first))) == SLICE_FRAMES
    assert wire.websocket.receive(last) == [str(SLICE_FRAMES), "last"]


EARLY = {
    "a reserved kind": (b"\x83", 1002),
    "a reserved bit": (b"\xc1", 1002),
    "a ping in fragments": (b"\x09", 1002),
    "a ping that is too long": (b"\x89\xfe", 1002),
    "a close that is far too long": (b"\x88\xff", 1002),
    "binary": (b"\x82", 4400),
    "not masked": (b"\x81\x05", 1002),
}


@pytest.mark.parametrize(("head", "code"), EARLY.values(), ids=EARLY)
def test_what_can_be_refused_by_its_header_is_not_waited_for(head: bytes, code: int) -> None:
    wire = Wire()
    wire.websocket.receive(head)
    assert wire.close is not None
    assert wire.close.code == code


def test_the_sizes_of_fragments_count_together_before_the_last_is_whole() -> None:
    websocket = Wire().websocket
    websocket.receive(b"\x01\x85\0\0\0\0hello")
    assert all_of(websocket, b"\x80\xfe" + MAX.to_bytes(2, "big") + b"\0\0\0\0" + b"x" * 9) == []
    assert websocket.closing, "five bytes and as many as the limit are more than the limit"


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x81",
        b"\x81\x83\0\0\0\0te",
        b"\x81\x82\0\0\0\0text",
        b"\x81\xff\0\0\0\0\0\0",  # the beginning of a frame, as long as one without a text
        b"\x81\x02te",
        b"\x01\x82\0\0\0\0te",
        b"\x89\x82\0\0\0\0te",
        b"\x81\x81\0\0\0\0\xff",
        b"\x81\xfe" + (MAX + 1).to_bytes(2, "big") + b"\0\0\0\0" + b"x" * (MAX + 1),
    ],
)
def test_only_one_whole_text_is_taken_the_short_way(packet: bytes) -> None:
    websocket = Wire().websocket
    assert websocket.single_text(packet) is None
    assert websocket.single_text(b"\x81\x82\0\0\0\0te") == "te", "nothing has been taken of it"


def test_nothing_is_taken_the_short_way_while_something_else_is_under_way() -> None:
    text = b"\x81\x82\0\0\0\0te"
    waiting, fragmented, closing = (Wire().websocket for _ in range(3))
    waiting.receive(b"\x81")
    fragmented.receive(b"\x01\x82\0\0\0\0te")
    closing.close(4000, "")
    for websocket in (waiting, fragmented, closing, WebSocket(MAX)):
        assert websocket.single_text(text) is None


def test_a_long_size_may_come_in_pieces() -> None:
    """What is there of it must not be taken for the size, or given to the library."""
    wire = Wire(max_bytes=70_000)
    frame = Frame(Opcode.TEXT, b"x" * 70_000).serialize(mask=True)
    for cut in range(1, 15):
        assert wire.websocket.receive(frame[:cut]) in ((), []), cut
        assert wire.websocket.receive(frame[cut:]) == ["x" * 70_000], cut


def test_a_size_that_is_too_large_in_pieces_is_refused() -> None:
    wire = Wire()
    assert wire.websocket.receive(b"\x81\xff\xff\xff") == []
    wire.websocket.receive(b"\xff" * 6)
    assert wire.close == Close(4413, "frame too large")


def test_a_close_of_the_clients_is_answered() -> None:
    wire = Wire()
    wire.client.send_close(1000, "bye")
    assert wire.deliver() == []
    assert wire.close == Close(1000, "bye")
    assert wire.websocket.closing


def test_an_end_without_close_is_an_end() -> None:
    wire = Wire()
    wire.websocket.eof()
    wire.websocket.eof()
    assert wire.websocket.closing
    wire.websocket.send(b"late")
    assert b"late" not in b"".join(wire.websocket.to_send())

"""Random bytes against what reads them: framing and handshake beside the `websockets` library, and the session.

Each part takes some seconds here, and as long as FUZZ_SECONDS says in `make fuzz`. The seed is printed; FUZZ_SEED
repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from signal_node.protocol.effects import (
    Act,
    Authenticate,
    CloseConnection,
    JoinRequest,
    Relay,
    ReportRequest,
    Send,
)
from signal_node.protocol.session import Session, SessionLimits
from signal_node.transport.events import Event, Opened, Violated
from signal_node.transport.websocket import WebSocket
from tests.security.plans import REQUEST, frame
from tests.unit.signal_node.calls import ROOM, USER_1

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32)))
MAX = 1_000
INPUTS = 20
BAD_FRAME, OUR_CODES = "4400", {"1009": "4413"}
"""We have codes of our own for binary, for what is no UTF-8, and for messages that are too large."""

DEFINED = (0x00, 0x01, 0x80, 0x81, 0x88, 0x89, 0x8A)
"""First bytes of frames that may come."""

CORPUS = (Path(__file__).parent / "corpus.jsonl").read_text().splitlines()


def rounds(what: str) -> Iterator[random.Random]:
    """A generator of its own for each round, so that one round can be repeated; says what was tried."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        yield random.Random(f"{SEED} {what} {count}")
        count += 1
    print(f"\n{count:,} rounds of {what}, FUZZ_SEED={SEED}")  # noqa: T201 - to repeat it


def cut(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """The bytes in random pieces."""
    at = 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 7, 50, 5_000))
        yield data[at : at + size]
        at += size


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Change, drop, repeat or insert something."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                del changed[at : at + rng.randrange(1, 9)]
            case 2:
                changed[at:at] = changed[max(0, at - rng.randrange(1, 30)) : at]
            case 3:
                changed[at:at] = rng.choice(
                    (b"\xff", b"\0", b"\r\n", b"\n", b"\xc3", b'"', b"{", b"\x81\xff")
                )
            case _:
                if at < len(changed):
                    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


# --- framing ---


def some_frames(rng: random.Random) -> bytes:
    """Frames, nearly all of them right."""
    return b"".join(a_frame(rng) for _ in range(rng.randrange(1, 6)))


def a_frame(rng: random.Random) -> bytes:
    opcode = rng.choice((Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.CONT, Opcode.PING, Opcode.PONG))
    if rng.random() < 0.05:
        opcode = rng.choice((Opcode.BINARY, Opcode.CLOSE))
    size = rng.choice((0, 1, 5, 125, 126, 127, MAX, MAX + 1, 400))
    body = rng.choice((b"x", "ü".encode(), b"\xff", "€".encode())) * size
    return frame(opcode, body[:size], fin=rng.random() < 0.8)


def of_library(data: bytes) -> tuple[list[str], str]:
    """The texts that the library finds in frames, and how the connection ends: as `WebSocket.ended_by` has it."""
    protocol = ServerProtocol(subprotocols=[Subprotocol("keepline.v1")], max_size=MAX)
    opened(protocol)
    protocol.receive_data(data)
    texts: list[str] = []
    message = b""
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode is Opcode.BINARY:
            return texts, BAD_FRAME
        if event.opcode in (Opcode.TEXT, Opcode.CONT):
            message = bytes(event.data) if event.opcode is Opcode.TEXT else message + bytes(event.data)
            if event.fin:
                try:
                    texts.append(message.decode())
                except UnicodeDecodeError:
                    return texts, BAD_FRAME
    if protocol.close_sent is None:
        return texts, "lost"
    code = str(int(protocol.close_sent.code))
    return texts, "client" if protocol.close_rcvd_then_sent else OUR_CODES.get(code, code)


def refused_by_header(data: bytes) -> tuple[int, str]:
    """Where a frame begins that we refuse by its header, and with which code; the library waits for all of it.

    Those are binary, reserved bits and kinds, and control frames whose size takes more than a byte, however small.
    """
    at = 0
    while at < len(data) and data[at] in DEFINED:
        masked, size, body = data[at + 1 : at + 2] >= b"\x80", data[at + 1 : at + 2], at + 2
        if not masked:
            return len(data), "lost"
        if size[0] >= 0xFE:
            if data[at] & 0x08:
                return at, "1002"
            more = 2 if size[0] == 0xFE else 8
            size, body = data[body : body + more], body + more
            if len(size) < more:
                return len(data), "lost"
            at = body + 4 + int.from_bytes(size, "big")
        else:
            at = body + 4 + (size[0] & 0x7F)
    if at >= len(data):
        return len(data), "lost"
    return at, BAD_FRAME if data[at] in (0x02, 0x82) else "1002"


def opened(protocol: ServerProtocol) -> None:
    protocol.receive_data(REQUEST)
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))


def of_ours(websocket: WebSocket, pieces: Iterator[bytes]) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        events += websocket.receive(piece)
        while websocket.behind:
            events += websocket.receive(b"")
    return events


def test_framing_means_what_it_means_to_the_library() -> None:
    for rng in rounds("framing"):
        data = mutated(rng, some_frames(rng))
        websocket = WebSocket(MAX, slice_frames=rng.choice((1, 2, 32)))
        assert websocket.receive(REQUEST) == [Opened(None)]
        events = of_ours(websocket, cut(rng, data))
        at, refused = refused_by_header(data)
        texts, end = of_library(data[:at])
        ours = [event for event in events if isinstance(event, str)]
        assert (ours, websocket.ended_by) == (texts, refused if end == "lost" else end), data
        websocket.eof()
        websocket.to_send()


def test_a_packet_with_one_frame_means_what_it_means_to_the_library() -> None:
    for rng in rounds("packets"):
        packets = [mutated(rng, a_frame(rng)) for _ in range(rng.randrange(1, 5))]
        websocket = WebSocket(MAX)
        websocket.receive(REQUEST)
        events: list[Event] = []
        for packet in packets:
            text = websocket.single_text(packet)
            events += of_ours(websocket, iter((packet,))) if text is None else [text]
        data = b"".join(packets)
        at, refused = refused_by_header(data)
        texts, end = of_library(data[:at])
        ours = [event for event in events if isinstance(event, str)]
        assert (ours, websocket.ended_by) == (texts, refused if end == "lost" else end), packets


def test_nothing_comes_after_a_breach() -> None:
    for rng in rounds("breaches"):
        websocket = WebSocket(MAX)
        websocket.receive(REQUEST)
        events = of_ours(websocket, cut(rng, some_frames(rng) + b"\x82\x80\0\0\0\0" + some_frames(rng)))
        kinds = [type(event) for event in events]
        assert kinds.count(Violated) <= 1
        assert Violated not in kinds[:-1]


# --- the handshake ---


def test_a_handshake_is_accepted_when_the_library_accepts_it() -> None:
    for rng in rounds("handshakes"):
        data = mutated(rng, REQUEST)
        websocket = WebSocket(MAX)
        events = of_ours(websocket, cut(rng, data))
        accepted = any(isinstance(event, Opened) for event in events)
        assert not accepted or of_handshake(data), data
        websocket.eof()
        websocket.to_send()


def of_handshake(data: bytes) -> bool:
    """Whether the library accepts what comes up to the end of the headers."""
    protocol = ServerProtocol(subprotocols=[Subprotocol("keepline.v1")])
    protocol.receive_data(data[: data.find(b"\r\n\r\n") + 4])
    requests = [event for event in protocol.events_received() if isinstance(event, Request)]
    return bool(requests) and protocol.accept(requests[0]).status_code == 101


# --- the session ---


def test_whatever_a_client_writes_the_session_answers_in_frames() -> None:
    for rng in rounds(f"sessions of {INPUTS} inputs"):
        session = Session(
            "0123456789abcdef", SessionLimits(bad_frames=rng.choice((1, 10, 1_000)), frames_burst=50)
        )
        if rng.random() < 0.7:
            ready(session)
        now = 1_000.0
        for _ in range(INPUTS):
            closed = session.closed()
            text = mutated(rng, rng.choice(CORPUS).encode()).decode(errors="replace")
            effects = session.receive(text, now)
            assert not (closed and effects), "a closed session says nothing"
            for effect in effects:
                check(effect, text)
            now += rng.choice((0.0, 0.0, 0.01, 5.0))


def ready(session: Session) -> None:
    session.receive(json.dumps({"type": "hello", "token": "t"}), 1_000.0)
    session.user = USER_1
    session.welcomed(request_id="1", resume="r", resumed=False, node="n", ice_servers=[], rooms=[])
    session.rooms.hold(ROOM, 1)


def check(effect: object, text: str) -> None:
    match effect:
        case Send(data):
            assert isinstance(json.loads(data), dict), text
        case Relay(data=data):
            json.loads(data.decode())  # strict UTF-8: it goes on to the peer as it is
        case Authenticate() | JoinRequest() | Act() | ReportRequest() | CloseConnection():
            pass
        case _:
            pytest.fail(f"{effect!r} for {text!r}")

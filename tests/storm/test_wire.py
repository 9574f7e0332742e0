from __future__ import annotations

import pytest

from tests.storm.wire import CLOSE, NO_CODE, TEXT, Frame, Head, Wire, upgrade_request

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
SHORT = b"\x81\x02{}"
LONG = b"\x81\x7e\x01\x00" + b"x" * 256
CLOSED = b"\x88\x02\x11\x39"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_reads_whatever_way_the_bytes_are_cut(size: int) -> None:
    data, wire = HEAD + SHORT + LONG + CLOSED, Wire()
    events = [event for at in range(0, len(data), size) for event in wire.receive(data[at : at + size])]
    assert events == [
        Head(101, None),
        Frame(TEXT, b"{}"),
        Frame(TEXT, b"x" * 256),
        Frame(CLOSE, b"\x11\x39"),
    ]
    assert isinstance(events[-1], Frame)
    assert events[-1].close_code == 4409


def test_a_refused_handshake_says_when_to_come_back() -> None:
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nfull"
    assert list(Wire().receive(answer)) == [Head(503, 7.0)]


def test_a_close_without_a_code_is_one() -> None:
    assert Frame(CLOSE, b"").close_code == NO_CODE


def test_asks_for_the_subprotocol() -> None:
    assert b"\r\nSec-WebSocket-Protocol: keepline.v1\r\n" in upgrade_request("127.0.0.1:1", "/v1")

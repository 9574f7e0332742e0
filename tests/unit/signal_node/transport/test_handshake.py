"""The quick handshake held against the library's: it answers the same, or leaves the request to it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from signal_node.transport import handshake

KEY = base64.b64encode(bytes(range(16))).decode()
PLAIN = (
    ("Host", "signal.example.org"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Protocol", "keepline.v1"),
)
BROWSER = (
    *PLAIN,
    ("Pragma", "no-cache"),
    ("Origin", "https://app.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ("X-Forwarded-For", "198.51.100.7, 10.0.0.1"),
    ("Cookie", "a=b; c=d"),
)
Headers = Sequence[tuple[str, str]]


def head(headers: Headers, line: str = "GET /v1 HTTP/1.1") -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def by_the_library(data: bytes) -> handshake.Accepted | None:
    """What the library makes of a head; None when it does not accept it."""
    protocol = ServerProtocol(subprotocols=[Subprotocol("keepline.v1")])
    protocol.receive_data(data)
    requests = [event for event in protocol.events_received() if isinstance(event, Request)]
    if not requests or requests[0].path.partition("?")[0] != handshake.PATH:
        return None
    response = protocol.accept(requests[0])
    if response.status_code != 101:
        return None
    headers = requests[0].headers
    return handshake.Accepted(
        response.serialize(), headers.get("Origin"), ",".join(headers.get_all("X-Forwarded-For"))
    )


def undated(accepted: handshake.Accepted | None) -> tuple[bytes, str | None, str] | None:
    if accepted is None:
        return None
    return re.sub(rb"Date: [^\r]*", b"", accepted.response), accepted.origin, accepted.forwarded_for


@pytest.mark.parametrize("headers", [PLAIN, BROWSER, PLAIN[::-1]])
@pytest.mark.parametrize("line", ["GET /v1 HTTP/1.1", "GET /v1?room=7d3c&x=%20 HTTP/1.1"])
def test_a_plain_handshake_is_answered_as_the_library_does(headers: Headers, line: str) -> None:
    data = head(headers, line)
    quick = handshake.accept(data)
    assert quick is not None
    assert undated(quick) == undated(by_the_library(data))


@pytest.mark.parametrize(
    "writing", ["connection: keep-alive, Upgrade", "CONNECTION:upgrade", "Connection: \tUPGRADE \t"]
)
def test_other_ways_to_write_the_same(writing: str) -> None:
    name, _, value = writing.partition(":")
    data = head([*PLAIN[:2], *PLAIN[3:]]).replace(b"\r\n\r\n", f"\r\n{name}:{value}\r\n\r\n".encode())
    quick = handshake.accept(data)
    assert quick is not None
    assert undated(quick) == undated(by_the_library(data))


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1 HTTP/1.0",
        "POST /v1 HTTP/1.1",
        "GET /v2 HTTP/1.1",
        "GET /v1/ HTTP/1.1",
        "GET  /v1 HTTP/1.1",
        "GET /v1",
    ],
)
def test_another_request_line_is_left_to_the_library(line: str) -> None:
    assert handshake.accept(head(PLAIN, line)) is None


@pytest.mark.parametrize("missing", range(1, len(PLAIN)))
def test_what_lacks_a_header_is_left_to_the_library(missing: int) -> None:
    assert handshake.accept(head([*PLAIN[:missing], *PLAIN[missing + 1 :]])) is None


@pytest.mark.parametrize(
    "more",
    [
        ("Upgrade", "websocket"),
        ("X-Forwarded-For", "é"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Bad name", "x"),
        ("", "x"),
        ("X", "y" * handshake.MAX_BYTES),
        ("X", "y\r\n folded"),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(more: tuple[str, str]) -> None:
    assert handshake.accept(head([*PLAIN, more])) is None


def test_many_headers_are_left_to_the_library() -> None:
    assert handshake.accept(head([*PLAIN, *((f"X-{n}", "y") for n in range(handshake.MAX_HEADERS))])) is None


names = st.sampled_from([name for name, _ in BROWSER] + ["X-Other", "content-length", "UPGRADE", "A b"])
values = st.sampled_from(
    [value for _, value in BROWSER] + ["8", "", "keepline.v2", "keepline.v1, x", KEY[:-1], "é"]
)


@given(st.lists(st.tuples(names, values), max_size=4), st.permutations(BROWSER), st.integers(0, len(BROWSER)))
def test_whatever_is_accepted_the_library_accepts_too(
    more: list[tuple[str, str]], headers: list[tuple[str, str]], count: int
) -> None:
    data = head([*headers[:count], *more, *headers[count:]][: len(BROWSER) + 2])
    quick = handshake.accept(data)
    if quick is not None:
        assert undated(quick) == undated(by_the_library(data))


@given(st.binary(max_size=30), st.integers(0, 400), st.integers(0, 8))
def test_damaged_requests_too(bytes_: bytes, at: int, cut: int) -> None:
    whole = head(BROWSER)
    data = whole[:at] + bytes_ + whole[at + cut :]
    quick = handshake.accept(data)
    if quick is not None:
        assert undated(quick) == undated(by_the_library(data))

"""A fast path for the handshake of nearly all clients. It takes a third of the library's time, which was the largest
part of a login.

It accepts only unambiguous requests: HTTP/1.1, each header once and in plain ASCII, and the headers of RFC 6455, 4.2.1,
with the values that browsers and libraries send. It leaves all others to the library, which accepts or refuses them. A
test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate

from websockets.utils import accept_key

from signal_node.protocol.fields import SUBPROTOCOL

PATH = "/v1"

MAX_BYTES = 4_096
MAX_HEADERS = 64

_REQUEST = re.compile(rb"GET " + PATH.encode() + rb"(?:\?[!-~]*)? HTTP/1\.1\r\n")
_HEADERS = re.compile(rb"(?:[0-9A-Za-z!#$%&'*+.^_`|~-]+:[\t -~]*\r\n)+\r\n")
_KEY = re.compile(rb"[0-9A-Za-z+/]{21}[AQgw]==")
_CONNECTION = (b"upgrade", b"keep-alive, upgrade")
_EXACT = {
    b"sec-websocket-version": b"13",
    b"sec-websocket-protocol": SUBPROTOCOL.encode(),
}
_BODY = (b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the library would answer, and the values that it would find."""

    response: bytes
    origin: str | None
    forwarded_for: str


def accept(head: bytes) -> Accepted | None:
    """Accept a complete request head, or leave it to the library."""
    start = _REQUEST.match(head)
    if start is None or len(head) > MAX_BYTES or not _HEADERS.fullmatch(head, start.end()):
        return None
    headers: dict[bytes, bytes] = {}
    lines = head[start.end() : -4].split(b"\r\n")
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    if len(lines) > MAX_HEADERS or len(headers) < len(lines) or not _is_plain(headers):
        return None
    origin = headers.get(b"origin")
    return Accepted(
        _response(headers[b"sec-websocket-key"].decode()),
        None if origin is None else origin.decode(),
        headers.get(b"x-forwarded-for", b"").decode(),
    )


def _is_plain(headers: dict[bytes, bytes]) -> bool:
    return (
        headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() in _CONNECTION
        and _KEY.fullmatch(headers.get(b"sec-websocket-key", b"")) is not None
        and all(headers.get(name) == value for name, value in _EXACT.items())
        and not any(name in headers for name in _BODY)
    )


def _response(key: str) -> bytes:
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
        "\r\n"
    ).encode()

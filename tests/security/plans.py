"""What attackers do, as bytes: frames, and the plan of one connection of each attack."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

REQUEST = (
    b"GET /v1 HTTP/1.1\r\nHost: keepline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)
CHUNK = 65_536
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame; the mask is zero, which changes nothing."""
    first, size = opcode | 0x80 * fin, len(data)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + data


def text(**fields: Any) -> bytes:
    """A frame of the protocol."""
    return frame(TEXT, json.dumps(fields).encode())


def many(data: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """As often as it fits into one write, without end."""
    return itertools.repeat(data * max(1, size // len(data)))


@dataclass
class Plan:
    """What one connection does: it sends `first`, says hello if it is to, sends `then` and after it `again`."""

    first: bytes = REQUEST
    hello: bool = False
    then: bytes = b""
    again: Iterator[bytes] = field(default_factory=lambda: iter(()))
    every: float = 0.0  # seconds from one of `again` to the next
    most: int = sys.maxsize  # bytes
    leaves: bool = False  # once it is welcome
    returns: bool = False  # when it was closed
    port: str = "ws"
    plain: bool = False  # no TLS, also where the other end expects it
    upgrades: bool = True  # it waits for the answer to its handshake
    reads: bool = True  # anything after that
    stays: bool = False  # when the other end has closed its half
    half_closes: bool = False  # when all is sent

    def __post_init__(self) -> None:
        self.upgrades = self.upgrades and self.first.endswith(REQUEST[REQUEST.index(b"Host") :])


@dataclass(frozen=True)
class Attacker:
    """Whose connection it is, and which of all that this attacker makes."""

    token: str
    room: str
    number: int

    @property
    def client(self) -> str:
        """An IPv6 address whose /64 few other connections have; all are of one /56."""
        return f"2001:db8:77:{self.number % 256:x}::1"


EIGHT_MB = 8_000_000
_BEGUN = frame(TEXT, b"x", fin=False)


def floods(attacker: Attacker) -> dict[str, Plan]:
    """Frames without end, before and after login and our close."""
    return {
        "pings": Plan(again=many(frame(PING)), most=EIGHT_MB),
        "pings of 125 bytes": Plan(again=many(frame(PING, bytes(125))), most=EIGHT_MB),
        "pongs": Plan(again=many(frame(PONG)), most=EIGHT_MB),
        "empty fragments": Plan(then=_BEGUN, again=many(frame(CONT, fin=False)), most=EIGHT_MB),
        "fragments of a byte": Plan(then=_BEGUN, again=many(frame(CONT, b"x", fin=False)), most=EIGHT_MB),
        "empty texts": Plan(again=many(frame(TEXT)), most=EIGHT_MB),
        "pings after login": Plan(hello=True, again=many(frame(PING)), most=EIGHT_MB),
        "texts after login": Plan(hello=True, again=many(frame(TEXT)), most=EIGHT_MB),
        "pings after our close": Plan(then=frame(BINARY), again=many(frame(PING)), most=EIGHT_MB),
        "pings, again and again": Plan(again=many(frame(PING)), returns=True),
    }


def entrances(attacker: Attacker) -> dict[str, Plan]:
    """Sockets, handshakes and logins."""
    proxied = f"PROXY TCP6 {attacker.client} 2001:db8::1 4711 443\r\n".encode() + REQUEST
    bad = text(type="hello", id="h", token="no.such.token")
    offers = (
        REQUEST[:-2] + b"Sec-WebSocket-Extensions: " + b"permessage-deflate; client_max_window_bits, " * 180
    )
    return {
        "headers without an end": Plan(b"GET /v1 HTTP/1.1\r\n", again=many(b"X: " + b"y" * 8_000 + b"\r\n")),
        "half-open": Plan(b"", returns=True),
        "half-closed": Plan(b"GET /v1 HTTP/1.1\r\n", half_closes=True, returns=True, stays=True),
        "before hello": Plan(returns=True),
        "closes without an end": Plan(then=frame(CLOSE, b"\x03\xe8"), stays=True, returns=True),
        "no TLS": Plan(b"\x16\x03\x01\x02\x00\x01\x00", plain=True, returns=True),
        "half a handshake of TLS": Plan(b"\x16\x03\x01\x02\x00\x01", plain=True, returns=True),
        "offers of compression": Plan(
            offers + b"x-none\r\n\r\n", then=b"\xc1\x85" + bytes(4) + b"aaaaa", returns=True
        ),
        "headers of proxies": Plan(b"\r\n\r\n\0\r\nQUIT\n\x21\x21\xff\xff" + b"x" * 8_000, returns=True),
        "logins": Plan(hello=True, leaves=True, returns=True),
        "bad tokens": Plan(then=bad, returns=True),
        "rotating networks": Plan(proxied, returns=True, most=1),
        "bad tokens of rotating networks": Plan(proxied, then=bad, returns=True),
    }


def members(attacker: Attacker) -> dict[str, Plan]:
    """What those do who have a token and a room."""
    room = attacker.room
    join, leave = text(type="join", id="j", room=room), text(type="leave", id="l", room=room)
    line = text(type="chat", id="c", room=room, text="\U0001f600" * 500)
    signal = text(type="signal", room=room, data="x" * 65_000)
    report = text(type="report", id="r", room=room, reason="x" * 500)
    return {
        "large signals": Plan(hello=True, then=join, again=itertools.repeat(signal), most=198 * 65_000),
        "joins of a full chat": Plan(hello=True, again=itertools.repeat(join), every=0.02),
        "joins that nobody reads": Plan(hello=True, again=itertools.repeat(join), every=0.02, reads=False),
        "joins and leaves": Plan(hello=True, again=itertools.repeat(join + leave), every=0.04),
        "chat": Plan(hello=True, then=join, again=itertools.repeat(line), every=0.02),
        "reports": Plan(hello=True, then=join, again=itertools.repeat(report), every=0.02),
    }


def ops(attacker: Attacker) -> dict[str, Plan]:
    """The port of the operators."""
    chunked = b"POST /v1/rooms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    metrics = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    wrong_key = b"GET /v1/rooms/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * 40 + b"\r\n\r\n"
    return {
        "chunks of a byte": Plan(chunked, again=many(b"1\r\nx\r\n"), port="http", returns=True),
        "slow requests": Plan(b"GET /livez HT", again=itertools.repeat(b"T"), every=0.2, port="http"),
        "garbage": Plan(b"\x16\x03\x01 \0\xff\r\n\r\n" * 100, port="http", returns=True),
        "metrics": Plan(b"", again=itertools.repeat(metrics * 8), every=0.02, port="http"),
        "wrong keys": Plan(b"", again=itertools.repeat(wrong_key * 50), port="http", returns=True),
    }


def plan(name: str, token: str, room: str, number: int = 0) -> Plan:
    """The plan of an attack, by its name."""
    attacker = Attacker(token, room, number)
    made = (floods(attacker) | entrances(attacker) | members(attacker) | ops(attacker))[name]
    if made.hello:
        made.then = text(type="hello", id="h", token=token) + made.then
    return made

"""An attacker: a program with nothing but sockets, so that it takes the machine little beside what it makes others do.

    python -m tests.security.attacker ATTACK '{"ws": ["ws://…"], "http": ["http://…"], "connections": 20, "seconds": 3}'

It prints a line of JSON: bytes sent, connections made, and how often the other end answered or ended what.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

REQUEST = (
    b"GET /v1 HTTP/1.1\r\nHost: keepline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)
CHUNK = 65_536
CONT, TEXT, BINARY, PING, PONG = 0, 1, 2, 9, 10
CLOSES = (1002, 4400, 4401, 4408, 4409, 4413, 4429, 4503, 4508)


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


def plan(name: str, token: str, room: str) -> Plan:
    """The plan of an attack, by its name."""
    eight_mb, start = 8_000_000, frame(TEXT, b"x", fin=False)
    request = b"POST /v1/rooms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    plans: dict[str, Callable[[], Plan]] = {
        "pings": lambda: Plan(again=many(frame(PING)), most=eight_mb),
        "pings of 125 bytes": lambda: Plan(again=many(frame(PING, bytes(125))), most=eight_mb),
        "pongs": lambda: Plan(again=many(frame(PONG)), most=eight_mb),
        "empty fragments": lambda: Plan(then=start, again=many(frame(CONT, fin=False)), most=eight_mb),
        "fragments of a byte": lambda: Plan(
            then=start, again=many(frame(CONT, b"x", fin=False)), most=eight_mb
        ),
        "empty texts": lambda: Plan(again=many(frame(TEXT)), most=eight_mb),
        "pings after login": lambda: Plan(hello=True, again=many(frame(PING)), most=eight_mb),
        "texts after login": lambda: Plan(hello=True, again=many(frame(TEXT)), most=eight_mb),
        "pings after our close": lambda: Plan(then=frame(BINARY), again=many(frame(PING)), most=eight_mb),
        "pings, again and again": lambda: Plan(again=many(frame(PING)), returns=True),
        "headers without an end": lambda: Plan(
            b"GET /v1 HTTP/1.1\r\n", again=many(b"X: " + b"y" * 8_000 + b"\r\n")
        ),
        "half-open": lambda: Plan(b"", returns=True),
        "before hello": lambda: Plan(returns=True),
        "large signals": lambda: Plan(
            hello=True,
            then=text(type="join", id="j", room=room),
            again=itertools.repeat(text(type="signal", room=room, data="x" * 65_000)),
            most=198 * 65_000,
        ),
        "joins of a full chat": lambda: Plan(
            hello=True, again=itertools.repeat(text(type="join", id="j", room=room)), every=0.02
        ),
        "logins": lambda: Plan(hello=True, leaves=True, returns=True),
        "chunks of a byte": lambda: Plan(request, again=many(b"1\r\nx\r\n"), port="http", returns=True),
        "slow requests": lambda: Plan(b"GET /livez HT", again=itertools.repeat(b"T"), every=0.2, port="http"),
        "garbage": lambda: Plan(b"\x16\x03\x01 \0\xff\r\n\r\n" * 100, port="http", returns=True),
        "metrics": lambda: Plan(
            b"",
            again=itertools.repeat(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 8),
            every=0.02,
            port="http",
        ),
    }
    made = plans[name]()
    if made.hello:
        made.then = text(type="hello", id="h", token=token) + made.then
    return made


class Connection:
    """One connection of the attack."""

    def __init__(self, options: dict[str, Any], number: int, seen: Counter[str]) -> None:
        tokens, rooms = options.get("tokens") or [""], options.get("rooms") or [""]
        self._what = options["attack"], tokens[number % len(tokens)], rooms[number % len(rooms)]
        self._plan = plan(*self._what)
        urls = options[self._plan.port]
        address = urlsplit(urls[number % len(urls)])
        self._to, self._from, self._seen = (address.hostname, address.port), options["source"], seen
        self._open()

    def _open(self) -> None:
        self._plan = plan(*self._what)
        self._out, self._sent, self._at = self._plan.first, 0, 0.0
        self._ready = self._plan.first != REQUEST
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.bind((self._from, 0))
        self._socket.connect_ex(self._to)
        self._seen["made"] += 1

    def go_on(self, now: float) -> bool:
        """Read and write once; False when it is over for good."""
        try:
            if self._read() and self._write(now):
                return True
        except BlockingIOError:
            return True
        except OSError as error:
            self._seen[type(error).__name__] += 1
        self._socket.close()
        if self._plan.returns:
            self._open()
        return self._plan.returns

    def _read(self) -> bool:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return True
        if data.startswith(b"HTTP/1.1 "):
            self._seen[data[9:12].decode()] += 1
        if not self._ready and data.startswith(b"HTTP/1.1 101"):
            self._ready = True
            self._out += self._plan.then
        for code in CLOSES:
            self._seen[str(code)] += b"\x88" in data and code.to_bytes(2, "big") in data
        if b'"welcome"' in data:
            self._seen["welcome"] += 1
            return not self._plan.leaves
        self._seen["ends"] += not data
        return bool(data)

    def _write(self, now: float) -> bool:
        if not self._out and self._ready and now >= self._at and self._sent < self._plan.most:
            self._out, self._at = next(self._plan.again, b""), now + self._plan.every
        if self._out:
            sent = self._socket.send(self._out)
            self._out, self._sent = self._out[sent:], self._sent + sent
            self._seen["bytes"] += sent
        return True


def main() -> None:
    """Attack until time is over."""
    options = {
        "attack": sys.argv[1],
        "connections": 1,
        "seconds": 2.0,
        "source": "127.0.0.9",
        **json.loads(sys.argv[2]),
    }
    seen: Counter[str] = Counter()
    connections = [Connection(options, number, seen) for number in range(options["connections"])]
    until = time.monotonic() + options["seconds"]
    while connections and (now := time.monotonic()) < until:
        before = seen["bytes"]
        connections = [connection for connection in connections if connection.go_on(now)]
        if seen["bytes"] == before:
            time.sleep(0.002)  # nobody takes anything: do not take the machine from those who are attacked
    sys.stdout.write(json.dumps(+seen) + "\n")


if __name__ == "__main__":
    main()

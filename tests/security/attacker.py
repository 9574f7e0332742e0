"""An attacker: a program with nothing but sockets, so that it takes the machine little beside what it makes others do.

    python -m tests.security.attacker ATTACK '{"ws": ["ws://…"], "http": ["http://…"], "connections": 20, "seconds": 3}'

It begins when it reads a line, and prints one of JSON: bytes sent, connections made, and how often the other end
answered or ended what. In a measurement it has the lowest priority (ATTACK_NICE=19): an attacker takes no time from the
machine that it attacks. Beside other tests it would starve.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from tests.security.plans import CHUNK, Plan, plan

CLOSES = (1002, 4400, 4401, 4408, 4409, 4413, 4429, 4503, 4508)
WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
NICE = int(os.environ.get("ATTACK_NICE", "0"))


class Connection:
    """One connection of the attack."""

    def __init__(self, options: dict[str, Any], number: int, seen: Counter[str]) -> None:
        tokens, rooms = options.get("tokens") or [""], options.get("rooms") or [""]
        self._what = options["attack"], tokens[number % len(tokens)], rooms[number % len(rooms)]
        self._number, self._step, self._opened = number, options["connections"], 0
        self._plan = self._next_plan()
        urls = options[self._plan.port]
        address = urlsplit(urls[number % len(urls)])
        self._tls = address.scheme in ("wss", "https") and not self._plan.plain
        self._to, self._from, self._seen = (address.hostname, address.port), options["source"], seen
        self._open()

    def _next_plan(self) -> Plan:
        """What it does this time; who comes again comes with another number."""
        made = plan(*self._what, self._number + self._step * self._opened)
        self._opened += 1
        return made

    def _open(self) -> None:
        self._out, self._sent, self._at, self._got = self._plan.first, 0, 0.0, 0
        self._ready = not self._plan.upgrades
        plain = socket.socket()
        plain.setblocking(False)
        if not self._plan.reads:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain.bind((self._from, 0))
        plain.connect_ex(self._to)
        self._socket = _tls().wrap_socket(plain, do_handshake_on_connect=False) if self._tls else plain
        self._shut = False
        self._seen["made"] += 1

    def go_on(self, now: float) -> bool:
        """Read and write once; False when it is over for good."""
        try:
            if self._read() and self._write(now):
                return True
        except WAITS:
            return True
        except OSError as error:
            self._seen[type(error).__name__] += 1
        self._socket.close()
        if self._plan.returns:
            self._plan = self._next_plan()
            self._open()
        return self._plan.returns

    def _read(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.version() is None:
            self._socket.do_handshake()
        if self._ready and not self._plan.reads:
            return True
        try:
            data = self._socket.recv(CHUNK)
        except WAITS:
            return True
        self._got += len(data)
        if data.startswith(b"HTTP/1.1 "):
            self._seen[data[9:12].decode()] += 1
        if not self._ready and data.startswith(b"HTTP/1.1 101"):
            self._ready = True
            self._out += self._plan.then
        for code in CLOSES:
            self._seen[str(code)] += b"\x88" in data and code.to_bytes(2, "big") in data
        self._seen["joined"] += data.count(b'"joined"')
        if b'"welcome"' in data:
            self._seen["welcome"] += 1
            return not self._plan.leaves
        self._seen["ends"] += not data
        return bool(data) or self._plan.stays

    def _write(self, now: float) -> bool:
        if not self._out and self._ready and now >= self._at and self._sent < self._plan.most:
            self._out, self._at = next(self._plan.again, b""), now + self._plan.every
        if self._out:
            sent = self._socket.send(self._out)
            self._out, self._sent = self._out[sent:], self._sent + sent
            self._seen["bytes"] += sent
        elif self._plan.half_closes and self._ready and not self._shut:
            self._socket.shutdown(socket.SHUT_WR)
            self._shut = True
        return True


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def main() -> None:
    """Attack until time is over."""
    options = {
        "attack": sys.argv[1],
        "connections": 1,
        "seconds": 2.0,
        "source": "127.0.0.9",
        **json.loads(sys.argv[2]),
    }
    os.nice(NICE)
    sys.stdin.readline()
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

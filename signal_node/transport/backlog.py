"""Accepted sockets that nothing reads yet. They are processed in order, a few per tick of the event loop.

If a crowd arrived at once, creating a transport, a protocol and a handshake for each client would delay all signals and
hellos until the last handshake was done. A waiting socket costs only a file descriptor.

If the node is overloaded, clients that have waited here for a while are refused without any of that work: their request
is discarded unparsed and answered with 503.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

TAKEN = 4
"""Number of sockets for which connections are created per tick."""

LOOKED_AT = 32
"""Number of sockets examined per tick: closing or refusing one costs less than a connection."""

PATIENCE_SECONDS = 1.0
"""How long a socket waits before it may be refused, so that its request has time to arrive."""

MAX_REQUEST = 16_384

_REFUSAL = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Retry-After: {seconds}\r\n"
    "Connection: close\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: {size}\r\n"
    "\r\n"
    "{text}"
)
_TEXT = "too many clients are connecting; retry later\n"


class Backlog:
    """A first-come, first-served queue of sockets."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[socket.socket, str | None], None],
        gone: Callable[[str | None], None],
        turn_away: Callable[[], float | None],
    ) -> None:
        """Call `take(socket, host)` for each socket in turn, and `gone(host)` for a socket that is closed here.

        `turn_away()` returns the seconds after which a client that cannot be served should retry; None to accept it.
        """
        self._loop = loop
        self._take = take
        self._turn_away = turn_away
        self._gone = gone
        self._waiting: deque[tuple[socket.socket, str | None, float]] = deque()
        self._planned = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, client: socket.socket, host: str | None) -> None:
        """Add a socket to the queue."""
        self._waiting.append((client, host, self._loop.time()))
        self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        self._planned = False
        taken = 0
        for _ in range(min(LOOKED_AT, len(self._waiting))):
            client, host, since = self._waiting.popleft()
            if self._loop.time() - since > PATIENCE_SECONDS and self._has_ended(client):
                self._gone(host)
                continue
            self._take(client, host)
            taken += 1
            if taken == TAKEN:
                break
        if self._waiting:
            self._plan()

    def _has_ended(self, client: socket.socket) -> bool:
        """Whether the client has disconnected, or was refused."""
        try:
            if client.recv(1, socket.MSG_PEEK):
                seconds = self._turn_away()
                if seconds is None:
                    return False
                _refuse(client, seconds)
        except BlockingIOError:
            return False  # nothing has arrived yet
        except OSError:
            pass
        client.close()
        return True


def _refuse(client: socket.socket, seconds: float) -> None:
    """Answer a request without parsing it. It must be read, because otherwise a reset would discard the answer."""
    client.recv(MAX_REQUEST)
    with suppress(BlockingIOError):
        client.send(refusal(seconds))
    client.shutdown(socket.SHUT_WR)


def refusal(seconds: float) -> bytes:
    """The answer to a client that has to retry later."""
    return _REFUSAL.format(seconds=max(1, math.ceil(seconds)), size=len(_TEXT), text=_TEXT).encode()

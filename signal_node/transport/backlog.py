"""Accepted sockets that nobody has read yet: taken in order, a few in each tick of the loop.

A transport, a protocol and a handshake for each of a crowd that comes in one moment would hold up all signals, and all
hellos, until the last one has shaken hands. A socket that waits costs a descriptor and nothing else.

When the node has more to do than it can, whoever has waited here for a while is refused without any of that: the
request is thrown away unread, and answered with 503.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

TAKEN = 4
"""Sockets for which connections are made in one tick."""

LOOKED_AT = 32
"""Those that have gone, or are refused, cost less."""

PATIENCE_SECONDS = 1.0
"""How long a socket has waited before it may be refused, so that its request is there."""

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
_TEXT = "many clients are coming in; try again later\n"


class Backlog:
    """First come, first served."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[socket.socket, str | None], None],
        gone: Callable[[str | None], None],
        turn_away: Callable[[], float | None],
    ) -> None:
        """Take `take(socket, host)`, and `gone(host)` for a socket that is closed here.

        `turn_away()` says in how many seconds a client is to come again that would wait in vain; None for nobody.
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
        """Take a socket when its turn comes."""
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
        """Whether a client has gone again, or was refused."""
        try:
            if client.recv(1, socket.MSG_PEEK):
                seconds = self._turn_away()
                if seconds is None:
                    return False
                _refuse(client, seconds)
        except BlockingIOError:
            return False  # it has not said anything
        except OSError:
            pass
        client.close()
        return True


def _refuse(client: socket.socket, seconds: float) -> None:
    """Answer a request without looking at it. What is not read of it would have the answer thrown away by a reset."""
    client.recv(MAX_REQUEST)
    with suppress(BlockingIOError):
        client.send(refusal(seconds))
    client.shutdown(socket.SHUT_WR)


def refusal(seconds: float) -> bytes:
    """The answer to a client that is to come again then."""
    return _REFUSAL.format(seconds=max(1, math.ceil(seconds)), size=len(_TEXT), text=_TEXT).encode()

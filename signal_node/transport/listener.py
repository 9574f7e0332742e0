"""The listening socket for clients. It is closed when the node has drained, and reopened on the same port.

Connections are accepted here instead of by the event loop's server, which accepts all that wait and creates a transport
for each before any check. This way an address over its limit costs only an `accept` and a `close`, a crowd is processed
a few at a time (`backlog`), and there are always descriptors left for the ops port.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from signal_node.transport.backlog import Backlog

BACKLOG = 4_096
"""The length of the system's queue. The system may cut it down (`net.core.somaxconn`)."""

ACCEPTS = 8
"""Number of connections that are accepted before other work has its turn."""

RECEIVE_BYTES = 131_072
"""The system's receive buffer of an unread connection. By default it grows to megabytes, for file transfers."""

PAUSE_SECONDS = 0.2
"""How long to pause accepting when the system has no descriptor or memory for another connection."""

TOLD_SECONDS = 60.0
TLS_SECONDS = 10.0

_SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """Which connections to accept.

    `admits(host)` is called for each socket. `gone(host)` is called for one that was admitted but never became a
    connection. `turn_away()` returns after how many seconds clients that would wait in vain should retry; None for
    nobody.
    """

    admits: Callable[[str | None], bool] = lambda host: True
    gone: Callable[[str | None], None] = lambda host: None
    turn_away: Callable[[], float | None] = lambda: None


class Listener:
    """Where one node listens for clients."""

    def __init__(
        self,
        accept: Callable[[str | None], asyncio.Protocol],
        host: str,
        port: int,
        door: Door | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`factory` creates the protocol for a connection from an IP address."""
        self._accept = accept
        self._host = host
        self._port = port
        self._door = door or Door()
        self._backlog: Backlog | None = None
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell_at = 0.0
        self.short = 0  # how often there was no descriptor for another connection

    @property
    def addresses(self) -> list[str]:
        """The current address, as `host:port`."""
        return [f"{host}:{port}" for host, port, *_ in (one.getsockname() for one in self._sockets)]

    @property
    def waiting(self) -> int:
        """Accepted sockets that are not read yet."""
        return 0 if self._backlog is None else len(self._backlog)

    async def open(self) -> None:
        """Start to accept clients. Raises OSError if the address is taken."""
        if self._sockets:
            return
        loop = asyncio.get_running_loop()
        backlog = self._backlog = self._backlog or self._new_backlog(loop)
        found = await loop.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        opened: list[socket.socket] = []
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                one = socket.socket(family, kind, protocol)
                opened.append(one)
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address[0], self._port, *address[2:]))
                self._port = one.getsockname()[1]
                one.listen(BACKLOG)
        except OSError:
            for one in opened:
                one.close()
            raise
        self._sockets = opened
        for one in opened:
            loop.add_reader(one, self._come, loop, one, backlog)

    def _new_backlog(self, loop: asyncio.AbstractEventLoop) -> Backlog:
        def take(client: socket.socket, host: str | None) -> None:
            task = loop.create_task(self._take(loop, client, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        door = self._door
        # A TLS client would not understand a plain-text refusal.
        return Backlog(loop, take, door.gone, door.turn_away if self._tls is None else Door().turn_away)

    def close(self) -> None:
        """Stop accepting clients: the system refuses new connections."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()

    def _come(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, backlog: Backlog) -> None:
        for _ in range(ACCEPTS):
            try:
                client, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._pause(loop, listening, backlog, error)
                return
            host = address[0] if isinstance(address, tuple) else None
            if self._door.admits(host):
                client.setblocking(False)
                backlog.add(client, host)
            else:
                client.close()

    async def _take(self, loop: asyncio.AbstractEventLoop, client: socket.socket, host: str | None) -> None:
        protocol = self._accept(host)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout = None if self._tls is None else TLS_SECONDS
            await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=self._tls, ssl_handshake_timeout=timeout
            )
        except OSError as error:  # it has disconnected, or does not speak TLS
            protocol.connection_lost(error)
            client.close()

    def _pause(
        self, loop: asyncio.AbstractEventLoop, listening: socket.socket, backlog: Backlog, error: OSError
    ) -> None:
        """Pause accepting: the event loop would otherwise report the waiting clients again and again."""
        self.short += 1
        if loop.time() >= self._tell_at:
            self._tell_at = loop.time() + TOLD_SECONDS
            _log.error("connections_not_accepted", error=str(error))
        loop.remove_reader(listening)
        loop.call_later(PAUSE_SECONDS, self._go_on, loop, listening, backlog)

    def _go_on(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, backlog: Backlog) -> None:
        if listening in self._sockets:
            loop.add_reader(listening, self._come, loop, listening, backlog)

"""The socket at which clients come in: closed when the node has sent them away, and opened again on the same port.

Connections are accepted here rather than by the loop's server, which takes all that wait and makes each a transport
before anybody is asked. So an address that has its share costs an `accept` and a `close`, a crowd comes in a few at a
time, and there are always descriptors left for the port of the operators.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import structlog

BACKLOG = 1_024

ACCEPTS = 8
"""Connections that are accepted before others have their turn."""

RECEIVE_BYTES = 131_072
"""What the system keeps of a connection that is not read. By default that grows to megabytes: for senders of files."""

PAUSE_SECONDS = 0.2
"""How long nobody is accepted when the system has no descriptor, or no memory, for another connection."""

TOLD_SECONDS = 60.0
TLS_SECONDS = 10.0

_SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = structlog.get_logger(__name__)


class Listener:
    """Where one node listens for clients."""

    def __init__(
        self,
        accept: Callable[[str | None], asyncio.Protocol],
        host: str,
        port: int,
        admits: Callable[[str | None], bool] = lambda host: True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take what makes the protocol of a connection from an IP address, and `admits(address)`, asked before."""
        self._accept = accept
        self._host = host
        self._port = port
        self._admits = admits
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell_at = 0.0
        self.short = 0  # how often there was no descriptor for another connection

    @property
    def addresses(self) -> list[str]:
        """Where it listens now, as `host:port`."""
        return [f"{host}:{port}" for host, port, *_ in (one.getsockname() for one in self._sockets)]

    async def open(self) -> None:
        """Let clients in. Raises OSError when the address is taken."""
        if self._sockets:
            return
        loop = asyncio.get_running_loop()
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
            loop.add_reader(one, self._come, loop, one)

    def close(self) -> None:
        """Let nobody in any more: new connections are refused by the system."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()

    def _come(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                client, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._pause(loop, listening, error)
                return
            host = address[0] if isinstance(address, tuple) else None
            if self._admits(host):
                task = loop.create_task(self._take(loop, client, host))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                client.close()

    async def _take(self, loop: asyncio.AbstractEventLoop, client: socket.socket, host: str | None) -> None:
        protocol = self._accept(host)
        client.setblocking(False)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            timeout = None if self._tls is None else TLS_SECONDS
            await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=self._tls, ssl_handshake_timeout=timeout
            )
        except OSError as error:  # gone again, or no TLS
            protocol.connection_lost(error)
            client.close()

    def _pause(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, error: OSError) -> None:
        """Let those who wait wait on: the system says every time that somebody does, and we could do nothing else."""
        self.short += 1
        if loop.time() >= self._tell_at:
            self._tell_at = loop.time() + TOLD_SECONDS
            _log.error("connections_not_accepted", error=str(error))
        loop.remove_reader(listening)
        loop.call_later(PAUSE_SECONDS, self._go_on, loop, listening)

    def _go_on(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        if listening in self._sockets:
            loop.add_reader(listening, self._come, loop, listening)

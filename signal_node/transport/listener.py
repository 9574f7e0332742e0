"""The socket at which clients come in: closed when the node has sent them away, and opened again on the same port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BACKLOG = 1_024


class Listener:
    """Where one node listens for clients."""

    def __init__(self, accept: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
        """Take what makes the protocol of each connection."""
        self._accept = accept
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens now, as `host:port`."""
        sockets = () if self._server is None else self._server.sockets
        return [f"{host}:{port}" for host, port, *_ in (socket.getsockname() for socket in sockets)]

    async def open(self) -> None:
        """Let clients in. Raises OSError when the address is taken."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept, self._host, self._port, backlog=BACKLOG, reuse_address=True
        )
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Let nobody in any more: whoever comes all the same is refused by the system."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

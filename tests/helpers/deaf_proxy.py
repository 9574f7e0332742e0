"""A proxy before Redis that can make subscriptions deaf: they stay open, and nothing comes through any more.

Commands go on unharmed. That is how pub/sub fails on its way through balancers and broken networks.
"""

from __future__ import annotations

import asyncio
from typing import Self

_CHUNK = 65_536
_CONNECT_SECONDS = 10.0


class DeafProxy:
    """Listens on a free port of loopback while the context is open.

    While `deafening` is set every subscription that something is sent to goes deaf, for the rest of its life. A
    subscription that is made after that hears again.
    """

    def __init__(self, host: str, port: int) -> None:
        self.deafening = False
        self.swallowed = 0
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        # Not cancelled: a server's own task that ends so is reported as an error by Python 3.11.
        for writer in self._writers:
            writer.transport.abort()
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.gather(*self._connections)

    @property
    def redis_url(self) -> str:
        """Where the Redis behind it is reached through it."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                server_reader, server_writer = await asyncio.open_connection(*self._target)
            await _Link(self, reader, writer, server_reader, server_writer).run()
        except (OSError, TimeoutError):
            await _abort(writer)
        finally:
            self._connections.discard(task)
            self._writers.discard(writer)


class _Link:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: DeafProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._subscribed = False
        self._deaf = False

    async def run(self) -> None:
        """Forward in both directions until one end closes."""
        directions = {asyncio.create_task(self._up()), asyncio.create_task(self._down())}
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            await _abort(self._writer, self._server_writer)

    async def _up(self) -> None:
        while data := await self._reader.read(_CHUNK):
            self._subscribed = self._subscribed or b"SUBSCRIBE" in data
            self._server_writer.write(data)
            await self._server_writer.drain()

    async def _down(self) -> None:
        while data := await self._server_reader.read(_CHUNK):
            self._deaf = self._deaf or (self._subscribed and self._proxy.deafening)
            if self._deaf:
                self._proxy.swallowed += len(data)
                continue
            self._writer.write(data)
            await self._writer.drain()


async def _abort(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

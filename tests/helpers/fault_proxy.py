"""A TCP proxy that does to a connection what bad networks do, each direction by itself.

    async with FaultProxy("127.0.0.1", 6379, seed=7) as proxy:
        client = connect(f"redis://127.0.0.1:{proxy.port}/0")
        proxy.to_client.delay = 0.5        # answers come half a second late, as many as there are at a time
        proxy.to_client.hold()             # not a byte comes through until release(); nobody is told
        proxy.reset()                      # connections end with a reset; new ones are taken
        proxy.cut()                        # and so does every new one, until restore()

`jitter` is drawn from a random number generator of its own seed, so that a run can be repeated.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

_CHUNK = 65_536
_CHUNKS_UNDER_WAY = 1_024
_CONNECT_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

Arrival = tuple[float, bytes]


@dataclass(slots=True)
class Direction:
    """One direction of all connections. Delay and jitter in seconds; a change counts for what comes from then on."""

    random: random.Random
    delay: float = 0.0
    jitter: float = 0.0
    bytes_per_second: float | None = None
    passed: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def hold(self) -> None:
        """Let nothing through; connections stay open, as with a network that has silently gone."""
        self._open.clear()

    def release(self) -> None:
        """Let through what was held, and all that follows."""
        self._open.set()

    async def receive(self, reader: asyncio.StreamReader, queue: asyncio.Queue[Arrival]) -> None:
        """Take what one end sends until it ends; the moment at which each piece is due goes with it."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            data = await reader.read(_CHUNK)
            # Not before what came earlier: TCP keeps the order.
            due = max(due, loop.time() + self.delay + self.random.uniform(0, self.jitter))
            await queue.put((due, data))
            if not data:
                return

    async def send(self, queue: asyncio.Queue[Arrival], writer: asyncio.StreamWriter) -> None:
        """Write to the other end what is due, and its end after all else."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self.bytes_per_second is not None:
                await asyncio.sleep(len(data) / self.bytes_per_second)
            await self._open.wait()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            self.passed += len(data)


class FaultProxy:
    """Listens on a free port of loopback while the context is open."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.to_server = Direction(random.Random(f"{seed} to server"))
        self.to_client = Direction(random.Random(f"{seed} to client"))
        self.accepted = 0
        self.port = 0
        self._target = host, port
        self._cut = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def lead_to(self, host: str, port: int) -> None:
        """Lead new connections elsewhere, as a name does that is changed; those that are open stay."""
        self._target = host, port

    def reset(self) -> None:
        """End all connections with a reset, at both ends."""
        for writer in list(self._writers):
            _reset(writer)

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._cut = True
        self.reset()

    def restore(self) -> None:
        """Take connections again."""
        self._cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        try:
            if self._cut:
                _reset(writer)
            else:
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            _reset(writer)
        finally:
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        ends = {writer, server_writer}
        self._writers |= ends
        upwards: asyncio.Queue[Arrival] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        downwards: asyncio.Queue[Arrival] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        work = [
            asyncio.create_task(self.to_server.receive(reader, upwards)),
            asyncio.create_task(self.to_server.send(upwards, server_writer)),
            asyncio.create_task(self.to_client.receive(server_reader, downwards)),
            asyncio.create_task(self.to_client.send(downwards, writer)),
        ]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._writers -= ends
            for end in ends:
                end.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

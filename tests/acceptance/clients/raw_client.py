"""A TCP connection to a node's client port, for what no WebSocket library would send, or would not leave unread."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.acceptance.clients.bare_client import FRAME_SECONDS, SUBPROTOCOL, check_frame

CHUNK_BYTES = 65_536


class RawClient:
    """Reads only when it is asked to."""

    def __init__(self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._protocol = ClientProtocol(parse_uri(url), subprotocols=[SUBPROTOCOL], max_size=None)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str, *, receive_buffer_bytes: int | None = None) -> RawClient:
        """Open the TCP connection. With a small buffer what is not read soon waits at the node."""
        address = urlsplit(url)
        opened = socket.socket()
        opened.setblocking(False)
        if receive_buffer_bytes is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        async with asyncio.timeout(FRAME_SECONDS):
            await asyncio.get_running_loop().sock_connect(opened, (address.hostname, address.port))
            return cls(url, *await asyncio.open_connection(sock=opened))

    async def handshake(self) -> None:
        """Become a WebSocket."""
        request = self._protocol.connect()
        self._protocol.send_request(request)
        await self.write(b"".join(self._protocol.data_to_send()))
        while not self._protocol.events_received():
            await self._read()
        assert self._protocol.handshake_exc is None

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(FRAME_SECONDS):
            await self._writer.drain()

    async def send(self, *frames: dict[str, Any]) -> None:
        """Send frames of the protocol in one write."""
        texts = (json.dumps(frame).encode() for frame in frames)
        await self.write(b"".join(websocket_frame(Opcode.TEXT, text) for text in texts))

    async def receive(self, count: int) -> list[dict[str, Any]]:
        """The next frames, so many."""
        frames = self._frames()
        while len(frames) < count and await self._read():
            frames += self._frames()
        assert len(frames) == count, frames
        return frames

    async def receive_until(self, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """All frames up to the first one for which `last` is true."""
        frames = self._frames()
        while not any(map(last, frames)):
            assert await self._read(), f"closed after {len(frames)} frames"
            frames += self._frames()
        return frames

    async def rest(self) -> tuple[list[dict[str, Any]], int]:
        """All frames until the connection is closed, and the code of that close; 1006 for none."""
        frames = self._frames()
        while await self._read():
            frames += self._frames()
        closed = self._protocol.close_rcvd
        return frames, 1006 if closed is None else closed.code

    def _frames(self) -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = []
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                frames.append(json.loads(bytes(event.data)))
                check_frame(frames[-1])
        return frames

    async def answer(self) -> bytes:
        """All bytes until the node closes the connection."""
        async with asyncio.timeout(FRAME_SECONDS):
            return await self._reader.read()

    async def aclose(self) -> None:
        """Close the TCP connection, whatever state it is in."""
        self._writer.transport.abort()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _read(self) -> bool:
        """Feed what has come to the protocol, which answers pings and the close; False at the end."""
        try:
            async with asyncio.timeout(FRAME_SECONDS):
                data = await self._reader.read(CHUNK_BYTES)
        except ConnectionResetError:
            data = b""
        if data:
            self._protocol.receive_data(data)
            self._writer.write(b"".join(self._protocol.data_to_send()))
        return bool(data)


def websocket_frame(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
    """The bytes of one WebSocket frame."""
    return Frame(opcode, data, fin).serialize(mask=mask)

"""A client's connection during setup: the WebSocket handshake, then texts one by one.

Once a pair is ready, its transports are passed to `bench.load`, which only counts frames. Frames are masked with a zero
key: RFC 6455 allows any key, and the generator's time is not measured.
"""

from __future__ import annotations

import asyncio
from typing import Self, cast

SECONDS = 20.0
"""Timeout of a single step of the setup."""

_MASKED = 0x80
_SHORT, _MEDIUM = 125, 0xFFFF
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class WebSocketError(Exception):
    """The server violated its protocol."""


def client_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """Encode a complete message of a client."""
    size = len(payload)
    if size <= _SHORT:
        head = bytes((0x80 | opcode, _MASKED | size))
    elif size <= _MEDIUM:
        head = bytes((0x80 | opcode, _MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, _MASKED | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def server_head(size: int) -> bytes:
    """The header of a server's text of `size` bytes."""
    if size <= _SHORT:
        return bytes((0x80 | _TEXT, size))
    return bytes((0x80 | _TEXT, 126)) + size.to_bytes(2, "big")


def frame_end(data: bytes, at: int) -> tuple[int, int]:
    """Start and end of the payload of the server's frame at `at`; the end may be beyond `data`."""
    if len(data) < at + 2:
        return at, len(data) + 1
    size, begin = data[at + 1], at + 2
    if size > _SHORT:
        begin += 2 if size == 126 else 8
        if len(data) < begin:
            return at, len(data) + 1
        size = int.from_bytes(data[at + 2 : begin], "big")
    return begin, begin + size


def answer_to(frame_start: int, payload: bytes) -> bytes:
    """A client's answer to a control frame; b"" for none. Raises WebSocketError for a close."""
    opcode = frame_start & 0x0F
    if opcode == _CLOSE:
        raise WebSocketError(f"closed by the server: {payload!r}")
    return client_frame(payload, _PONG) if opcode == _PING else b""


class WebSocket(asyncio.Protocol):
    """One client. `open`, then `send` and `receive`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._rest = b""
        self._upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._texts: asyncio.Queue[bytes | WebSocketError] = asyncio.Queue()

    @classmethod
    async def open(cls, port: int, path: str, subprotocol: str | None) -> Self:
        """Connect and upgrade. Raises WebSocketError, OSError or TimeoutError."""
        async with asyncio.timeout(SECONDS):
            loop = asyncio.get_running_loop()
            _, websocket = await loop.create_connection(cls, "127.0.0.1", port)
            lines = [
                f"GET {path} HTTP/1.1",
                f"Host: 127.0.0.1:{port}",
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Key: {_KEY}",
                "Sec-WebSocket-Version: 13",
            ]
            if subprotocol is not None:
                lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
            websocket.transport.write("\r\n".join([*lines, "", ""]).encode())
            await websocket._upgraded
        return websocket

    def send(self, text: bytes) -> None:
        """Write a text message."""
        self.transport.write(client_frame(text))

    async def receive(self) -> bytes:
        """The next text message. Raises WebSocketError or TimeoutError."""
        async with asyncio.timeout(SECONDS):
            text = await self._texts.get()
        if isinstance(text, WebSocketError):
            raise text
        return text

    def detach(self) -> asyncio.Transport:
        """Return the transport, which must be idle. Raises WebSocketError."""
        if self._rest:
            raise WebSocketError("half of a frame is in flight")
        return self.transport

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(WebSocketError(f"connection lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._upgraded.done() and not self._upgrade():
            return
        while True:
            begin, end = frame_end(self._rest, 0)
            if end > len(self._rest):
                return
            start, payload, self._rest = self._rest[0], self._rest[begin:end], self._rest[end:]
            if start & 0x0F == _TEXT:
                self._texts.put_nowait(payload)
            else:
                self._control(start, payload)

    def _upgrade(self) -> bool:
        head, blank, rest = self._rest.partition(b"\r\n\r\n")
        if not blank:
            return False
        self._rest = rest
        if not head.startswith(b"HTTP/1.1 101 "):
            self._fail(WebSocketError(f"not upgraded: {head.decode(errors='replace')}"))
            return False
        self._upgraded.set_result(None)
        return True

    def _control(self, start: int, payload: bytes) -> None:
        try:
            self.transport.write(answer_to(start, payload))
        except WebSocketError as error:
            self._fail(error)

    def _fail(self, error: WebSocketError) -> None:
        if not self._upgraded.done():
            self._upgraded.set_exception(error)
        else:
            self._texts.put_nowait(error)

"""A WebSocket between a client and a node: bytes in order, with a delay, until it breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any

from signal_node.transport.connection import Connection
from tests.simulation.loop import WORLD, SimulationLoop

_HANDSHAKE = (
    b"GET /v1 HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
DELAY = (0.001, 0.04)
ABNORMAL = 1006


class Wire(asyncio.Transport):
    """The transport that a node's connection writes to, and the client's end of it, at an IP address.

    `on_frame` gets what the node sends, `on_close` the code, once.
    """

    def __init__(
        self,
        loop: SimulationLoop,
        random: Random,
        connection: Connection,
        context: Context,
        host: str,
        on_frame: Callable[[dict[str, Any]], None],
        on_close: Callable[[int], None],
    ) -> None:
        super().__init__({"peername": (host, 50_000)})
        self.connection = connection
        self._loop = loop
        self._random = random
        self._node = context
        self._client = WORLD.context()
        self._on_frame = on_frame
        self._on_close = on_close
        self._incoming = bytearray()
        self._handshaken = False
        self._code = ABNORMAL
        self._lost_at_node = False
        self._lost_at_client = False
        self._paused = False
        self._came: list[bytes] = []
        self._up_until = self._down_until = 0.0
        self._up(lambda: connection.connection_made(self))
        self._send(_HANDSHAKE)

    # --- the client's end ---

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame to the node."""
        self._send(_masked(_TEXT, json.dumps(frame).encode()))

    def drop(self, *, noticed: bool) -> None:
        """The connection breaks; the node notices at once, or only by the silence."""
        self._client_lost()
        if noticed:
            self._up(self._node_lost)

    def node_died(self) -> None:
        """The process at the other end is gone: the client gets a reset."""
        self._lost_at_node = True
        self._down(self._client_lost)

    def _send(self, data: bytes) -> None:
        if not self._lost_at_client:
            self._up(lambda: self._at_node(data))

    def _at_node(self, data: bytes) -> None:
        if self._paused:
            self._came.append(data)
        elif not self._lost_at_node:
            self.connection.data_received(data)

    def _receive(self, data: bytes) -> None:
        if self._lost_at_client:
            return
        self._incoming += data
        if not self._handshaken:
            head, end, rest = bytes(self._incoming).partition(b"\r\n\r\n")
            if not end:
                return
            if head.startswith(b"HTTP/1.1 503"):
                return  # it drains, and ends the connection
            assert head.startswith(b"HTTP/1.1 101"), head
            self._handshaken, self._incoming = True, bytearray(rest)
        while (frame := _first_frame(self._incoming)) is not None:
            self._take(*frame)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._on_frame(json.loads(payload))
        elif opcode == _PING:
            self._send(_masked(_PONG, payload))
        elif opcode == _CLOSE:
            self._code = int.from_bytes(payload[:2], "big")
            self._send(_masked(_CLOSE, payload))

    def _client_lost(self) -> None:
        if not self._lost_at_client:
            self._lost_at_client = True
            self._on_close(self._code)

    # --- the node's end ---

    def get_write_buffer_size(self) -> int:
        return 0  # the network takes all at once

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        came, self._came = self._came, []
        for data in came:
            self._at_node(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        copy = bytes(data)
        self._down(lambda: self._receive(copy))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._down(self._ended_by_node)

    def _ended_by_node(self) -> None:
        if not self._lost_at_client:
            self._client_lost()
            self._up(self._node_lost)

    def is_closing(self) -> bool:
        return self._lost_at_node

    def abort(self) -> None:
        if not self._lost_at_node:
            self._lost_at_node = True
            self._loop.call_soon(self.connection.connection_lost, None, context=self._node)
            self._down(self._client_lost)

    def _node_lost(self) -> None:
        if not self._lost_at_node:
            self._lost_at_node = True
            self.connection.connection_lost(None)

    # --- the way ---

    def _up(self, work: Callable[[], None]) -> None:
        self._up_until = max(self._up_until, self._loop.time() + self._random.uniform(*DELAY))
        self._loop.call_at(self._up_until, work, context=self._node)

    def _down(self, work: Callable[[], None]) -> None:
        self._down_until = max(self._down_until, self._loop.time() + self._random.uniform(*DELAY))
        self._loop.call_at(self._down_until, work, context=self._client)


def _masked(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    head = (
        bytes((0x80 | opcode, 0x80 | size))
        if size < 126
        else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    )
    return head + bytes(4) + payload


def _first_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Take the first frame off what has come; None when it is not whole."""
    if len(data) < 2:
        return None
    size, body = data[1] & 0x7F, 2
    if size == 126:
        size, body = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, body = int.from_bytes(data[2:10], "big"), 10
    if len(data) < body + size:
        return None
    frame = data[0] & 0x0F, bytes(data[body : body + size])
    del data[: body + size]
    return frame

"""The floor: counts bytes and writes as many prepared frames to the peer. Only the cost of kernel and generator
remains.

Usage: python floor_relay.py PORT. The first two connections to a path are a pair. All frames of a connection must have
the size of its first.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import cast

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_waiting: dict[bytes, Floor] = {}


class Floor(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer: Floor | None = None
        self.upgraded = False
        self.size = self.partial = 0
        self.frame = b""

    def data_received(self, data: bytes) -> None:
        if not self.upgraded:
            self._upgrade(data)
            return
        if not self.size:
            payload = int.from_bytes(data[2:4], "big")
            self.size = 8 + payload
            self.frame = b"\x81\x7e" + data[2:4] + data[8 : 8 + payload]
        count, self.partial = divmod(self.partial + len(data), self.size)
        if count and self.peer is not None:
            self.peer.transport.write(self.frame * count)

    def _upgrade(self, request: bytes) -> None:
        self.upgraded = True
        path = request.split(b" ", 2)[1]
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.peer = _waiting.pop(path, None)
        if self.peer is None:
            _waiting[path] = self
        else:
            self.peer.peer = self


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))

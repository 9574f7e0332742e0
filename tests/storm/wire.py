"""The client's half of a WebSocket, without I/O: as little of RFC 6455 as a crowd of thousands needs.

Frames are masked with a zero key, which the RFC allows: it is the nodes that are measured. A server's message is taken
to be one frame, as Keepline writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.websocket import client_frame, frame_end

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
NO_CODE = 1005
_END_OF_HEAD = b"\r\n\r\n"


def upgrade_request(host: str, path: str) -> bytes:
    """The head of the handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: keepline.v1",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def text_frame(payload: bytes) -> bytes:
    """A text message from a client."""
    return client_frame(payload, TEXT)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping."""
    return client_frame(payload, PONG)


CLOSE_FRAME = client_frame((1000).to_bytes(2, "big"), CLOSE)


@dataclass(frozen=True, slots=True)
class Head:
    """The answer to the handshake. `retry_after` is in seconds."""

    status: int
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """A message or a control frame of the server."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """The code of a close."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else NO_CODE


class Wire:
    """What has come and is not whole yet."""

    __slots__ = ("_rest", "_upgraded")

    def __init__(self) -> None:
        self._rest = b""
        self._upgraded = False

    def receive(self, data: bytes) -> Iterator[Head | Frame]:
        """What these bytes complete: the head first, then frames."""
        data = self._rest + data if self._rest else data
        at = 0
        if not self._upgraded:
            end = data.find(_END_OF_HEAD)
            if end < 0:
                self._rest = data
                return
            head = _head(data[:end])
            self._upgraded = head.status == 101
            at = end + len(_END_OF_HEAD)
            yield head
        while self._upgraded and at < len(data):
            begin, end = frame_end(data, at)
            if end > len(data):
                break
            yield Frame(data[at] & 0x0F, data[begin:end])
            at = end
        self._rest = data[at:]


def _head(data: bytes) -> Head:
    status, *lines = data.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    retry_after = headers.get("retry-after", "")
    return Head(int(status.split()[1]), float(retry_after) if retry_after.isdigit() else None)

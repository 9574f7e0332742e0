"""How a client of each server joins a room, and how it sends a signal there. The signal is the same for all."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.websocket import WebSocket, WebSocketError

SIGNAL_BYTES = 300
"""An ICE candidate of a browser in Keepline's envelope."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A user's place in a room."""

    room: str
    side: int
    token: str = field(default="", repr=False)


def signal_of(seat: Seat) -> bytes:
    """A signal with an ICE candidate, padded to `SIGNAL_BYTES` in its free part."""
    candidate = "candidate:842163049 1 udp 1677729535 203.0.113.77 46154 typ srflx raddr 0.0.0.0 rport 0"
    ice = {"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": ""}
    frame = {
        "type": "signal",
        "room": seat.room,
        "stream": uuid.uuid4().hex[:16],
        "n": 1,
        "data": {"candidate": ice},
    }
    ice["usernameFragment"] = "u" * (SIGNAL_BYTES - len(orjson.dumps(frame)))
    return orjson.dumps(frame)


class Dialect(ABC):
    """The protocol of one kind of server."""

    subprotocol: str | None = None

    @abstractmethod
    def path(self, seat: Seat) -> str:
        """The subprotocol and path for the handshake."""

    @abstractmethod
    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        """Take a seat. Raises WebSocketError if the server refuses, TimeoutError if it does not answer."""

    def wrap(self, signal: bytes) -> bytes:
        """Encode a signal as text."""
        return signal

    def unwrap(self, text: bytes) -> bytes | None:
        """The signal in a received text; None if it is something else."""
        return text if orjson.loads(text).get("type") == "signal" else None


class Keepline(Dialect):
    """Keepline's protocol v1. A seat that was taken before is resumed, as on a lost connection."""

    subprotocol = "keepline.v1"

    def __init__(self) -> None:
        self._resume: dict[Seat, str] = {}

    def path(self, seat: Seat) -> str:
        return f"/v1?room={seat.room}"

    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        hello = {"type": "hello", "token": seat.token}
        if seat in self._resume:
            hello["resume"] = self._resume[seat]
        websocket.send(orjson.dumps(hello))
        welcome = await _answer(websocket, "welcome")
        if "resume" in hello:
            if not welcome["resumed"] or not welcome["rooms"]:
                raise WebSocketError(f"not resumed: {welcome}")
        else:
            websocket.send(orjson.dumps({"type": "join", "room": seat.room}))
            await _answer(websocket, "joined")
        self._resume[seat] = welcome["resume"]


class Greeted(Dialect):
    """The relay on `ws`: our frames, without their guarantees."""

    def path(self, seat: Seat) -> str:
        return "/"

    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        websocket.send(orjson.dumps({"type": "hello", "token": "none"}))
        await _answer(websocket, "welcome")
        websocket.send(orjson.dumps({"type": "join", "room": seat.room}))
        await _answer(websocket, "joined")


class Plain(Dialect):
    """The relay on `websockets`: our frames, without hello."""

    def path(self, seat: Seat) -> str:
        return "/"

    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        websocket.send(orjson.dumps({"type": "join", "room": seat.room, "side": seat.side}))
        await _answer(websocket, "joined")


class Paired(Dialect):
    """The floor: two connections with the same path are a pair."""

    def path(self, seat: Seat) -> str:
        return f"/{seat.room}"

    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        pass


class SocketIo(Dialect):
    """Engine.IO 4 over WebSocket only, with socket.io's default namespace."""

    _OPEN, _CONNECTED, _EVENT, _ANSWER = b"0{", b"40", b'42["signal",', b"430["

    def path(self, seat: Seat) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    async def enter(self, websocket: WebSocket, seat: Seat) -> None:
        await _starts_with(websocket, self._OPEN)
        websocket.send(b"40")
        await _starts_with(websocket, self._CONNECTED)
        websocket.send(b"420" + orjson.dumps(["join", {"type": "join", "room": seat.room}]))
        await _starts_with(websocket, self._ANSWER)

    def wrap(self, signal: bytes) -> bytes:
        return self._EVENT + signal + b"]"

    def unwrap(self, text: bytes) -> bytes | None:
        return text[len(self._EVENT) : -1] if text.startswith(self._EVENT) else None


async def _answer(websocket: WebSocket, kind: str) -> dict[str, Any]:
    """Read until a frame of that type, skipping others of the room. Raises WebSocketError for an error."""
    while (frame := orjson.loads(await websocket.receive())).get("type") != kind:
        if frame.get("type") == "error":
            raise WebSocketError(f"refused: {frame}")
    return dict(frame)


async def _starts_with(websocket: WebSocket, expected: bytes) -> None:
    text = await websocket.receive()
    if not text.startswith(expected):
        raise WebSocketError(f"{text!r} instead of {expected!r}")

"""One try of a client: TCP, the handshake, a hello, a join, and then whatever the node says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

import orjson

from tests.storm.wire import (
    CLOSE,
    CLOSE_FRAME,
    PING,
    TEXT,
    Frame,
    Head,
    Wire,
    pong_frame,
    text_frame,
    upgrade_request,
)

LOOPBACK = "127.0.0.1"
LOST_WITHOUT_A_WORD = 1006
JOIN_AGAIN_SECONDS = 1.0
CALL_OVER = frozenset({"room_ended", "room_not_found", "not_a_member"})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits, in seconds. One of before `queued` does not know what that says."""

    connect: float = 5.0
    answer: float = 10.0
    knows_queued: bool = True


@dataclass(frozen=True, slots=True)
class Seat:
    """A user's place in a room. `address` is where the client connects from, None for anywhere."""

    room: str
    user: str
    token: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection came to nothing, or to its end. `retry_after` is what the node asked for, in seconds."""

    why: str
    close_code: int = LOST_WITHOUT_A_WORD
    retry_after: float | None = None


class Owner(Protocol):
    """Whose connection it is."""

    def welcomed(self, connection: Connection, frame: dict[str, Any]) -> None:
        """The hello was taken."""

    def inside(self, how: str) -> None:
        """The side is held: "joined" or "resumed"."""

    def over(self, why: str) -> None:
        """The call is over."""

    def told_goodbye(self, seconds: float) -> None:
        """The node will be gone: connect elsewhere in so many seconds."""

    def failed(self, connection: Connection, failure: Failure) -> None:
        """The connection is gone. Said once."""


@lru_cache
def _head(port: int) -> bytes:
    return upgrade_request(f"{LOOPBACK}:{port}", "/v1")


class Connection(asyncio.Protocol):
    """`open` it once; everything else is said to its owner."""

    __slots__ = (
        "_answers_by", "_failure", "_gone", "_loop", "_opening", "_owner", "_patience", "_port", "_resume",
        "_seat", "_timer", "_transport", "_wire",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        seat: Seat,
        resume: str | None,
        patience: Patience,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._owner = owner
        self._seat = seat
        self._resume = resume
        self._patience = patience
        self._loop = loop
        self._wire = Wire()
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    def open(self, port: int) -> None:
        """Connect, shake hands and say hello."""
        self._port = port
        self._wait(self._patience.connect, "no handshake in time")
        address = None if self._seat.address is None else (self._seat.address, 0)
        connecting = self._loop.create_connection(lambda: self, LOOPBACK, port, local_addr=address)
        self._opening = self._loop.create_task(connecting)
        self._opening.add_done_callback(self._opened)

    def join(self) -> None:
        """Ask for the side."""
        self._send(orjson.dumps({"type": "join", "id": "j", "room": self._seat.room}))
        self._wait(self._patience.answer, "no answer to a join in time")

    def give_up(self) -> None:
        """Close it in order; its owner hears no more of it."""
        self._end(CLOSE_FRAME)

    def cut(self) -> None:
        """Lose it without a word to the node."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_head(self._port))

    def data_received(self, data: bytes) -> None:
        for event in self._wire.receive(data):
            if self._gone:
                return
            if isinstance(event, Head):
                self._shaken(event)
            elif event.opcode == TEXT:
                self._said(orjson.loads(event.payload))
            else:
                self._control(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Failure("lost"))

    # --- what the node says ---

    def _opened(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail(Failure("not connected"))

    def _shaken(self, head: Head) -> None:
        if head.status != 101:
            self._fail(Failure(f"refused: HTTP {head.status}", retry_after=head.retry_after))
            return
        resume = {} if self._resume is None else {"resume": self._resume}
        self._send(orjson.dumps({"type": "hello", "id": "h", "token": self._seat.token, **resume}))
        self._wait(self._patience.answer, "no welcome in time")

    def _control(self, frame: Frame) -> None:
        if frame.opcode == PING and self._transport is not None:
            self._transport.write(pong_frame(frame.payload))
        elif frame.opcode == CLOSE:
            self._fail(Failure(f"closed: {frame.close_code}", frame.close_code))

    def _said(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "queued" if self._patience.knows_queued:
                self._wait(self._patience.answer, "no welcome in time")
            case "welcome":
                self._welcomed(frame)
            case "joined":
                self._wait(None)
                self._owner.inside("joined")
            case "error":
                self._refused(frame)
            case "goodbye":
                self._owner.told_goodbye(frame["reconnect_after_ms"] / 1000)
            case "ended":
                self._owner.over(frame["reason"])

    def _welcomed(self, frame: dict[str, Any]) -> None:
        self._wait(None)
        self._owner.welcomed(self, frame)
        if frame["resumed"] and any(held["room"]["room_id"] == self._seat.room for held in frame["rooms"]):
            self._owner.inside("resumed")
        else:
            self.join()

    def _refused(self, frame: dict[str, Any]) -> None:
        code, milliseconds = frame["code"], frame.get("retry_after_ms")
        retry_after = None if milliseconds is None else milliseconds / 1000
        if frame.get("id") != "j":
            self._fail(Failure(f"refused: {code}", retry_after=retry_after))
        elif code in CALL_OVER:
            self._owner.over(frame.get("reason") or code)
        else:
            self._wait(None)
            self._timer = self._loop.call_later(retry_after or JOIN_AGAIN_SECONDS, self.join)

    # --- its own time and end ---

    def _send(self, text: bytes) -> None:
        if self._transport is not None:
            self._transport.write(text_frame(text))

    def _wait(self, seconds: float | None, why: str = "") -> None:
        """Allow so long for what comes next."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._too_late, why)

    def _too_late(self, why: str) -> None:
        self._fail(Failure(why))

    def _fail(self, failure: Failure) -> None:
        if not self._gone:
            self._end(CLOSE_FRAME if failure.close_code == LOST_WITHOUT_A_WORD else b"")
            self._owner.failed(self, failure)

    def _end(self, last_words: bytes) -> None:
        self._gone = True
        self._wait(None)
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(last_words)
            self._transport.close()

"""A node that does what a test tells it, on a real socket, and values that frames are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from keepline.client import Call, Event, Keepline, Options

ALICE = "2f1c7f0e-52f4-4b86-8d6c-64f1d5f6a001"
BOB = "9a0e7b1d-3c55-4f0e-a0b3-1f6f8b1ca002"
ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"
TIMEOUT = 5.0

Frame = dict[str, Any]
A = TypeVar("A")
B = TypeVar("B")


class Waits:
    """Stands in for `asyncio.sleep`: waits for nothing and remembers how long it should have."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


def quick(waits: Waits | None = None, **changes: Any) -> Options:
    """Options under which no test waits for time to pass; jitter always draws its ceiling."""
    given: dict[str, Any] = {"sleep": waits or Waits(), "uniform": lambda low, high: high}
    return Options(**(given | changes))


def snapshot(**changes: Any) -> Frame:
    """A room between Alice and Bob."""
    room = {
        "room_id": ROOM,
        "user_1": ALICE,
        "user_2": BOB,
        "chat_mode": "video",
        "status": "active",
        "started_at": 1_767_225_600_000,
        "duration_seconds": 600,
        "grace_period_expires": None,
        "user_1_connected": True,
        "user_2_connected": True,
        "messages": [],
        "version": 2,
        "ended_reason": None,
        "ended_at": None,
    }
    return room | changes


def message(seq: int, text: str = "Hello!", sender: str = BOB) -> Frame:
    """A line of chat."""
    return {"seq": seq, "from": sender, "text": text, "at": 1_767_225_600_000 + seq}


def membership(peer: str = "joined", **changes: Any) -> Frame:
    """The room as Alice sees it."""
    return {"room": snapshot(**changes), "side": 1, "polite": False, "peer": peer}


class Visit:
    """One client's connection, from the node's end."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket
        self.path = socket.request.path if socket.request else ""

    async def any(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(TIMEOUT):
            frame: Frame = orjson.loads(await self._socket.recv())
        return frame

    async def read(self, kind: str) -> Frame:
        """The next frame but for what the SDK adds, presence notes and acknowledgements, which must be of this type."""
        while _is_added(frame := await self.any()) and (kind != "ack" or frame["type"] != kind):
            pass
        assert frame["type"] == kind, frame
        return frame

    async def peer_is_older(self) -> None:
        """Pass on a signal of a peer whose SDK acknowledges nothing."""
        await self.send("signal", room=ROOM, stream="older", n=1, data={"here": None})

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send(orjson.dumps({"type": kind, **fields}), text=True)

    async def send_text(self, text: str) -> None:
        await self._socket.send(text)

    async def answer(self, request: Frame, kind: str, **fields: Any) -> None:
        await self.send(kind, **({"id": request["id"]} if "id" in request else {}), **fields)

    async def welcome(self, *, resume: str = "secret-1", **changes: Any) -> Frame:
        """Read hello and answer it; returns the hello."""
        hello = await self.read("hello")
        fields = {
            "user": ALICE,
            "session": "s1",
            "resume": resume,
            "resumed": False,
            "node": "node-1",
            "ice_servers": [{"urls": ["stun:stun.example.org"]}],
            "rooms": [],
        }
        await self.answer(hello, "welcome", **(fields | changes))
        return hello

    async def admit(self, peer: str = "absent", **changes: Any) -> None:
        """Read join and answer it."""
        await self.answer(await self.read("join"), "joined", **membership(peer, **changes))

    async def close(self, code: int, reason: str = "") -> None:
        await self._socket.close(code, reason)

    def kill(self) -> None:
        """Break the connection without a word, as a dead node does."""
        self._socket.transport.abort()

    def freeze(self) -> None:
        """Hear nothing more, as a peer behind a network that has silently gone: the socket stays open."""
        self._socket.transport.pause_reading()

    async def gone(self) -> int | None:
        """Wait until the client has closed; its close code."""
        async with asyncio.timeout(TIMEOUT):
            await self._socket.wait_closed()
        return self._socket.close_code


def _is_added(frame: Frame) -> bool:
    data = frame.get("data")
    return frame["type"] == "ack" or (isinstance(data, dict) and "here" in data)


class ScriptedNode:
    """Hands every connection to the test, which plays the node."""

    def __init__(self) -> None:
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.url = ""
        self.refuse_with: HTTPStatus | None = None
        self.refused = 0
        self.headers: dict[str, str] = {}

    async def visit(self) -> Visit:
        """The next connection."""
        async with asyncio.timeout(TIMEOUT):
            return await self._visits.get()

    async def serve(self, socket: ServerConnection) -> None:
        await self._visits.put(Visit(socket))
        await socket.wait_closed()

    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if self.refuse_with is None:
            return None
        self.refused += 1
        response = socket.respond(self.refuse_with, "not now\n")
        response.headers.update(self.headers)
        return response


@asynccontextmanager
async def scripted_node(subprotocol: str | None = "keepline.v1") -> AsyncIterator[ScriptedNode]:
    """A node on a free port of loopback."""
    node = ScriptedNode()
    async with serve(
        node.serve,
        "127.0.0.1",
        0,
        subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)],
        process_request=node.admit,
        close_timeout=1,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        node.url = f"ws://127.0.0.1:{port}/v1"
        yield node


async def together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run the client's and the node's part of a step at the same time."""
    async with asyncio.timeout(TIMEOUT):
        both: tuple[A, B] = await asyncio.gather(first, second)
        return both


async def welcomed(client: Keepline, node: ScriptedNode, **changes: Any) -> tuple[Visit, Frame]:
    """Enter the client while the node welcomes it: the connection, and the hello that came on it."""

    async def play() -> tuple[Visit, Frame]:
        visit = await node.visit()
        return visit, await visit.welcome(**changes)

    _, welcome = await together(client.__aenter__(), play())
    return welcome


async def next_events(call: Call, count: int) -> list[Event]:
    """The next events of a call."""
    events: list[Event] = []
    async with asyncio.timeout(TIMEOUT):
        async for event in call.events():
            events.append(event)
            if len(events) == count:
                break
    return events

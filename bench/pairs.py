"""Pairs of clients that are ready to signal: connected, in rooms, with a verified signal in each direction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from bench.dialects import Dialect, Seat, signal_of
from bench.load import Client, Load, Tally
from bench.servers import Server
from bench.websocket import WebSocket, WebSocketError

_AT_ONCE = 50


@asynccontextmanager
async def pairs(server: Server, count: int) -> AsyncIterator[Load]:
    """`count` pairs that are ready to signal. Raises WebSocketError if a signal does not arrive as it was sent."""
    tally = Tally()
    async with server.new_rooms(count) as rooms:
        websockets = await _all_entered(server, [seat for room in rooms for seat in room])
        seats = [seat for room in rooms for seat in room]
        clients: list[Client] = []
        for index in range(0, len(websockets), 2):
            two = websockets[index : index + 2], seats[index : index + 2]
            clients += await _introduce(server.dialect, *two, tally)
        load = Load(clients, tally, server.watched)
        try:
            yield load
        finally:
            load.close()


async def _all_entered(server: Server, seats: Sequence[Seat]) -> list[WebSocket]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def enter(seat: Seat) -> WebSocket:
        async with at_once:
            port = server.ports[0 if seat.side == 1 else -1]
            websocket = await WebSocket.open(port, server.dialect.path(seat), server.dialect.subprotocol)
            await server.dialect.enter(websocket, seat)
            return websocket

    return await asyncio.gather(*(enter(seat) for seat in seats))


async def _introduce(
    dialect: Dialect, websockets: Sequence[WebSocket], seats: Sequence[Seat], tally: Tally
) -> list[Client]:
    """Have two clients send each other the signal of the measurement."""
    texts = [dialect.wrap(signal_of(seat)) for seat in seats]
    sizes = [
        await _arrives(dialect, texts[0], websockets[0], websockets[1]),
        await _arrives(dialect, texts[1], websockets[1], websockets[0]),
    ]
    first = Client(websockets[0].detach(), texts[0], sizes[1], tally)
    second = Client(websockets[1].detach(), texts[1], sizes[0], tally)
    first.peer, second.peer = second, first
    return [first, second]


async def _arrives(dialect: Dialect, text: bytes, sender: WebSocket, receiver: WebSocket) -> int:
    """Check that a signal arrives with its values, and return the size of its text."""
    sender.send(text)
    while (signal := dialect.unwrap(arrived := await receiver.receive())) is None:
        pass
    if orjson.loads(signal) != orjson.loads(dialect.unwrap(text) or b""):
        raise WebSocketError(f"sent {text!r}, arrived {arrived!r}")
    return len(arrived)

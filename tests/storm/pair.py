"""An honest pair: two clients of one call that signal each other all the time, in a process of their own.

`python -m tests.storm.pair PORT ROOM TOKEN TOKEN FILE` writes a line for each signal that arrives: when it was sent,
by the monotonic clock, which all processes of a machine share, and how long it took, in seconds. It runs until killed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import IO

import orjson

from bench.dialects import Keepline, Seat
from bench.websocket import WebSocket

PAUSE_SECONDS = 0.02


async def signal(port: int, room: str, tokens: list[str], output: IO[str]) -> None:
    """Bring both in, then signal from each to the other."""
    dialect = Keepline()
    websockets = []
    for side, token in enumerate(tokens, start=1):
        seat = Seat(room, side, token)
        websocket = await WebSocket.open(port, dialect.path(seat), dialect.subprotocol)
        await dialect.enter(websocket, seat)
        websockets.append(websocket)
    async with asyncio.TaskGroup() as group:
        for websocket in websockets:
            group.create_task(_send(websocket, room))
            group.create_task(_receive(websocket, output))


async def _send(websocket: WebSocket, room: str) -> None:
    while True:
        now = time.monotonic()
        websocket.send(orjson.dumps({"type": "signal", "room": room, "data": {"app": now}}))
        await asyncio.sleep(PAUSE_SECONDS)


async def _receive(websocket: WebSocket, output: IO[str]) -> None:
    while True:
        frame = orjson.loads(await websocket.receive())
        if frame["type"] == "signal":
            sent = frame["data"]["app"]
            output.write(f"{sent} {time.monotonic() - sent}\n")
            output.flush()


def main(port: str, room: str, first: str, second: str, file: str) -> None:
    """Signal until killed."""
    with Path(file).open("w") as output:
        asyncio.run(signal(int(port), room, [first, second], output))


if __name__ == "__main__":
    main(*sys.argv[1:])

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
from bench.link import Link

PAUSE_SECONDS = 0.02


async def signal(port: int, room: str, tokens: list[str], output: IO[str]) -> None:
    """Bring both in, then signal from each to the other."""
    dialect = Keepline()
    links = []
    for side, token in enumerate(tokens, start=1):
        seat = Seat(room, side, token)
        link = await Link.open(port, dialect.path(seat), dialect.subprotocol)
        await dialect.enter(link, seat)
        links.append(link)
    async with asyncio.TaskGroup() as group:
        for link in links:
            group.create_task(_send(link, room))
            group.create_task(_receive(link, output))


async def _send(link: Link, room: str) -> None:
    while True:
        now = time.monotonic()
        link.send(orjson.dumps({"type": "signal", "room": room, "data": {"app": now}}))
        await asyncio.sleep(PAUSE_SECONDS)


async def _receive(link: Link, output: IO[str]) -> None:
    while True:
        frame = orjson.loads(await link.receive())
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

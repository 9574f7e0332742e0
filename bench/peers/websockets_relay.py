"""A room relay on `websockets`' asyncio server: decodes the frame, looks up the peer, forwards the text.

Usage: python websockets_relay.py PORT asyncio|uvloop. This is what a careful author would write in an afternoon: no
tokens, no limits, no stored rooms.
"""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

rooms: dict[str, dict[int, ServerConnection]] = {}


async def handle(connection: ServerConnection) -> None:
    """Serve one client until it disconnects."""
    sides: dict[str, int] = {}
    try:
        async for text in connection:
            frame = orjson.loads(text)
            room = rooms.setdefault(frame["room"], {})
            if frame["type"] == "join":
                sides[frame["room"]] = frame["side"]
                room[frame["side"]] = connection
                await connection.send('{"type":"joined"}')
            elif frame["type"] == "signal" and frame["room"] in sides:
                peer = room.get(3 - sides[frame["room"]])
                if peer is not None:
                    await peer.send(text)
    except ConnectionClosed:
        pass
    finally:
        for name, side in sides.items():
            rooms[name].pop(side, None)


async def main(port: int) -> None:
    """Serve until killed."""
    async with serve(handle, "127.0.0.1", port, compression=None, backlog=1024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    loop_factory = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(int(sys.argv[1])))

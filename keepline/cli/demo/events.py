"""Events of the cluster's programs, sent to every open demo page over a WebSocket."""

import asyncio
from typing import Any

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

MOST_PAGES = 200
_QUEUE = 100
_PING_SECONDS = 20.0
_CLOSE_SECONDS = 2.0
_LARGEST_FRAME = 1_024


class Events:
    """Sends events to pages. A page that does not read its events is disconnected, and reconnects."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes]] = set()

    @property
    def pages(self) -> int:
        """Number of connected pages."""
        return len(self._queues)

    def tell(self, event: dict[str, Any]) -> None:
        """Send `event` to all open pages."""
        text = orjson.dumps(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(text)
            except asyncio.QueueFull:
                self._queues.discard(queue)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send one page all events until it closes."""
        socket = web.WebSocketResponse(
            heartbeat=_PING_SECONDS, timeout=_CLOSE_SECONDS, max_msg_size=_LARGEST_FRAME
        )
        await socket.prepare(request)
        if len(self._queues) >= MOST_PAGES:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too many pages")
            return socket
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)
        self._queues.add(queue)
        sending = asyncio.create_task(self._send(socket, queue))
        try:
            async for message in socket:  # pages send nothing: this waits for the close
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
        finally:
            sending.cancel()
            self._queues.discard(queue)
            await socket.close()
        return socket

    async def _send(self, socket: web.WebSocketResponse, queue: asyncio.Queue[bytes]) -> None:
        while queue in self._queues:
            await socket.send_str((await queue.get()).decode())
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")

"""Forwards WebSockets from the page's TLS port to a node, so that a phone needs one port and one certificate."""

import asyncio
from typing import TypeAlias

import aiohttp
from aiohttp import WSMsgType, web

from keepline.ops.http import HttpError

SUBPROTOCOL = "keepline.v1"
_CONNECT_SECONDS = 3.0
_LARGEST_FRAME = 1024 * 1024
_UNSENT = (1005, 1006, 1015)  # codes that mean that no code was sent

Socket: TypeAlias = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def relay(request: web.Request, session: aiohttp.ClientSession, node_url: str) -> web.StreamResponse:
    """Forward a client's connection to the node at `node_url` until either side closes it.

    Raises HttpError 503 if the node does not accept it, so that the client tries the next one.
    """
    headers = {name: request.headers[name] for name in ("Origin",) if name in request.headers}
    url = f"{node_url}?{request.query_string}" if request.query_string else node_url
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            node = await session.ws_connect(
                url, protocols=[SUBPROTOCOL], headers=headers, max_msg_size=_LARGEST_FRAME
            )
    except (aiohttp.ClientError, TimeoutError):
        raise HttpError(503, "unavailable", "the node does not answer", retry_after_ms=500) from None
    try:
        visitor = web.WebSocketResponse(protocols=[SUBPROTOCOL], max_msg_size=_LARGEST_FRAME, autoping=True)
        await visitor.prepare(request)
        await _both_ways(visitor, node)
    finally:
        await node.close()
    return visitor


async def _both_ways(visitor: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> None:
    """Forward frames until one side closes, then close the other one the same way."""
    up = asyncio.create_task(_carry(visitor, node))
    down = asyncio.create_task(_carry(node, visitor))
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
    await visitor.close(code=_passed_on(node.close_code))
    await node.close(code=_passed_on(visitor.close_code))


async def _carry(source: Socket, target: Socket) -> None:
    """Forward frames until either side is gone."""
    async for message in source:
        try:
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
        except ConnectionError:
            return


def _passed_on(code: int | None) -> int:
    """The close code to forward. A side that died has none; "service restart" is the closest."""
    return aiohttp.WSCloseCode.SERVICE_RESTART if code is None or code in _UNSENT else code

"""The end of a node: its clients are sent away, spread over time, so that they do not all come back at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from signal_node import closes, wire
from signal_node.node import Node
from signal_node.session import Stage

SPREAD_MS = 2_000
"""Clients are told to come back after up to this many ms."""

SHARE = 0.7
"""The part of the drain window over which goodbyes are spread; the rest is for their closes and the journal."""

POLL_SECONDS = 0.02

_log = structlog.get_logger(__name__)


async def drain(node: Node, seconds: float, hurry: asyncio.Event, uniform: Callable[[], float]) -> None:
    """Say goodbye to all clients within `seconds`, then wait for closes and commits until the time is over.

    `hurry` ends it at once. `uniform()` draws from 0 to 1.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    connections = list(node.clients)
    for done, connection in enumerate(connections, start=1):
        if connection.session.stage is Stage.READY:
            frame = wire.Goodbye(reason="draining", reconnect_after_ms=round(uniform() * SPREAD_MS))
            connection.write(wire.encode(frame))
        connection.close(closes.DRAINING)
        if done < len(connections):
            await _until(hurry, began + seconds * SHARE * done / len(connections) - loop.time())
        if hurry.is_set():
            break
    deadline = began + seconds
    while len(node.clients) and loop.time() < deadline and not hurry.is_set():
        await _until(hurry, POLL_SECONDS)
    for connection in node.clients:
        connection.abort()
    try:
        await asyncio.wait_for(node.rooms.settled(), max(1.0, deadline - loop.time()))
    except TimeoutError:
        _log.error("changes_not_stored", waiting=node.rooms.waiting)


async def _until(event: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return

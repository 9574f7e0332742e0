"""Drains a node, because it stops or because an operator wants it empty.

Goodbyes are spread over time, so that clients do not all reconnect at once. Calls in the middle of a negotiation come
last. A client keeps its connection until its time to reconnect and a moment longer, so one that connects elsewhere
first misses nothing.

Load balancers learn late that the node takes no more clients, because they check `/readyz` every few seconds. Until
then they still send clients. So the port stays open for a while, and new clients are refused in the handshake, with an
answer that sends a load balancer, or the client itself, to another node. Goodbyes start after that, so that no client
that is told to leave is sent back here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from keepline.ops.tasks import Tasks
from signal_node.protocol import close_codes, server_frames
from signal_node.protocol.session import Stage
from signal_node.rooms.cache import Rooms
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections
from signal_node.transport.listener import Listener

SPREAD_MS = 2_000
"""Maximum reconnect time that clients are told, in ms, or a tenth of the drain window if that is less."""

LINGER_MS = 1_000
"""How long after that time the connection stays open, or 15 % of the window if that is less."""

SHARE = 0.6
"""The part of the drain window over which goodbyes are spread."""

FIRST_SHARE = 0.3
"""The part of the window by which goodbyes start, even if the port is still open."""

LAST_SHARE = 0.7
"""The part of the window by which negotiating clients get their goodbyes; the rest is for closes and the journal."""

QUIET_SECONDS = 5.0
"""A call without description or candidate for this long has finished its negotiation."""

POLL_SECONDS = 0.02

_log = structlog.get_logger(__name__)


class Drain:
    """Empties a node of its clients."""

    def __init__(
        self,
        clients: Connections,
        rooms: Rooms,
        negotiated_at: Callable[[str], float | None],
        uniform: Callable[[], float],
    ) -> None:
        """`negotiated_at(room_id)` is when a room last negotiated, on the event loop's clock.

        `uniform()` returns random numbers from 0 to 1.
        """
        self.clients = clients
        self._rooms = rooms
        self._negotiated_at = negotiated_at
        self._uniform = uniform

    async def run(self, seconds: float, hurry: asyncio.Event, linger: float = 0.0) -> None:
        """Send goodbye to all clients within `seconds`, then wait for closes and commits until the time is over.

        `hurry` ends it at once. For the first `linger` seconds, load balancers may still send clients.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + seconds
        goodbyes = Goodbyes(self._negotiated_at, loop, seconds, self._uniform)
        try:
            first, last = began + min(linger, seconds * FIRST_SHARE), began + seconds * SHARE
            late = await _spread(list(self.clients), goodbyes.say_if_calm, first, last, hurry)
            now = loop.time()
            await _spread(late, goodbyes.say, now, max(now, began + seconds * LAST_SHARE), hurry)
            while len(self.clients) and loop.time() < deadline and not hurry.is_set():
                await _until(hurry, POLL_SECONDS)
        finally:
            goodbyes.cancel()
        for connection in self.clients:
            if not connection.websocket.connecting:
                connection.abort()
        try:
            await asyncio.wait_for(self._rooms.all_stored(), max(1.0, deadline - loop.time()))
        except TimeoutError:
            _log.error("changes_not_stored", waiting=self._rooms.waiting)


class Goodbyes:
    """Sends goodbye to clients, and closes their connections at their time."""

    def __init__(
        self,
        negotiated_at: Callable[[str], float | None],
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        uniform: Callable[[], float],
    ) -> None:
        self._negotiated_at = negotiated_at
        self._loop = loop
        self._spread_ms = min(SPREAD_MS, seconds * 100)
        self._linger_ms = min(LINGER_MS, seconds * 150)
        self._uniform = uniform
        self._closes: list[asyncio.TimerHandle] = []

    def say_if_calm(self, connection: Connection) -> bool:
        """Send goodbye unless the client's call is negotiating. Returns whether it was sent."""
        if self._negotiates(connection):
            return False
        return self.say(connection)

    def say(self, connection: Connection) -> bool:
        """Send goodbye. A client that is not welcomed yet is closed at once, or refused in the handshake."""
        if connection.websocket.connecting:
            return True
        if connection.session.stage is not Stage.READY:
            connection.close(close_codes.DRAINING)
            return True
        reconnect_after_ms = round(self._uniform() * self._spread_ms)
        frame = server_frames.Goodbye(reason="draining", reconnect_after_ms=reconnect_after_ms)
        connection.write(server_frames.encode(frame))
        connection.leaving = True
        stays = (reconnect_after_ms + self._linger_ms) / 1_000
        self._closes.append(self._loop.call_later(stays, _close, connection))
        return True

    def cancel(self) -> None:
        """Close no more connections."""
        for close in self._closes:
            close.cancel()

    def _negotiates(self, connection: Connection) -> bool:
        times = map(self._negotiated_at, connection.session.rooms.held)
        quiet_since = self._loop.time() - QUIET_SECONDS
        return any(at is not None and at > quiet_since for at in times)


def _close(connection: Connection) -> None:
    connection.close(close_codes.REPLACED if connection.replaced else close_codes.DRAINING)


async def _spread(
    connections: Sequence[Connection],
    say: Callable[[Connection], bool],
    start: float,
    end: float,
    hurry: asyncio.Event,
) -> list[Connection]:
    """Send goodbyes one by one between two times, and return the clients that got none."""
    loop = asyncio.get_running_loop()
    late = []
    for number, connection in enumerate(connections):
        await _until(hurry, start + (end - start) * number / len(connections) - loop.time())
        if hurry.is_set():
            break
        if not connection.session.closed() and not say(connection):
            late.append(connection)
    return late


async def _until(event: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


class DrainState:
    """Whether the node is draining: for a while on an operator's request, or because it stops."""

    def __init__(self) -> None:
        self.hurry = asyncio.Event()
        self.stopping = False
        self.running: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether the node refuses new clients."""
        return self.stopping or self.running is not None


class Drains:
    """Starts and cancels drains."""

    def __init__(
        self,
        node: str,
        state: DrainState,
        drain: Drain,
        listener: Listener,
        tasks: Tasks,
        *,
        seconds: float,
        linger: float,
    ) -> None:
        """Take the default drain window, and for how much of it the port stays open at most."""
        self.state = state
        self._node = node
        self._drain = drain
        self._listener = listener
        self._tasks = tasks
        self._seconds = seconds
        self._linger = linger
        self._ends_at = 0.0
        self._shuts_at = 0.0
        self._shutting: asyncio.TimerHandle | None = None

    def report(self) -> dict[str, Any]:
        """The progress: `state` is ready, draining or drained; `remaining_ms` is the time until the last are closed."""
        sessions, now = len(self._drain.clients), asyncio.get_running_loop().time()
        busy = sessions or now < self._shuts_at or not self._done()
        state = "ready" if not self.state.active else "draining" if busy else "drained"
        remaining = max(0, round((self._ends_at - now) * 1_000)) if state == "draining" else 0
        return {"node": self._node, "state": state, "sessions": sessions, "remaining_ms": remaining}

    def begin(self, seconds: float | None = None) -> None:
        """Start to drain within `seconds`. No effect if a drain is in progress."""
        if self.state.active:
            return
        window = self._seconds if seconds is None else seconds
        linger = self._shut(window)
        _log.info("drain_asked_for", sessions=len(self._drain.clients), seconds=window)
        self.state.running = self._tasks.start(
            "drain", lambda: self._drain.run(window, asyncio.Event(), linger), restart=True
        )

    def _shut(self, window: float) -> float:
        """Close the port when load balancers have had time to notice. Returns the seconds until then."""
        loop = asyncio.get_running_loop()
        linger = min(self._linger, window)
        self._ends_at, self._shuts_at = loop.time() + window, loop.time() + linger
        if linger:
            self._shutting = loop.call_at(self._shuts_at, self._listener.close)
        else:
            self._listener.close()
        return linger

    async def undo(self) -> None:
        """Accept clients again. Those that were told to leave do. Raises OSError if the port is taken by now."""
        if self.state.stopping or self.state.running is None:
            return
        self.state.running.cancel()
        await asyncio.wait([self.state.running])
        self._forget_to_shut()
        await self._listener.open()
        self.state.running = None
        _log.info("drain_undone", sessions=len(self._drain.clients))

    async def stop(self) -> None:
        """Drain permanently, because the node stops. `hurry` ends it at once."""
        self.state.stopping = True
        loop = asyncio.get_running_loop()
        _log.info("draining", sessions=len(self._drain.clients), seconds=self._seconds)
        if self.state.running is None:
            self._shut(self._seconds)
        else:
            self._ends_at = loop.time() + self._seconds
            self.state.running.cancel()
            await asyncio.wait([self.state.running])
        linger = max(0.0, self._shuts_at - loop.time())
        await self._drain.run(self._seconds, self.state.hurry, linger)
        await _until(self.state.hurry, self._shuts_at - loop.time())
        self._forget_to_shut()
        self._listener.close()

    def _forget_to_shut(self) -> None:
        """Run the timer's action now, or not at all."""
        self._shuts_at = 0.0
        if self._shutting is not None:
            self._shutting.cancel()
            self._shutting = None

    def _done(self) -> bool:
        return self.state.running is not None and self.state.running.done()

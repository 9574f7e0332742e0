"""What the HTTP endpoint lets strangers do: little at a time, and never at the cost of whom the loop works for.

The endpoint shares its loop with a node's clients. The library parses whatever a read has brought in one go, waits for
ever for the end of a request, and logs garbage with a traceback. So here each connection gets a slice of its bytes
parsed at a time and a budget of work, a request that does not come to its end is cut off, and of too many connections
those go that have asked for nothing: a probe of `/livez` always finds a place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from keepline.ops.budget import Budget

MAX_CONNECTIONS = 256
SLICE_BYTES = 4_096
REQUEST_SECONDS = 10.0
"""How long a request may take to arrive."""

COST_OF_SLICE, COST_OF_REQUEST = 0.2, 0.5
"""Milliseconds of the loop, rounded up."""

RATE, BURST = 150.0, 300.0
"""Milliseconds of work a second, and at once, that one connection may cause."""

ALL_RATE, ALL_BURST = 300.0, 600.0
"""The same for all connections together."""

_log = structlog.get_logger(__name__)


class Guarded(RequestHandler):
    """One connection to the endpoint."""

    def __init__(self, guard: Guard, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=guard.loop, **options)
        self._guard = guard
        self._budget = Budget(RATE, BURST, guard.budget)
        self._backlog = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody works on a request of this connection."""
        return not self._request_in_progress

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, somebody else's if need be."""
        super().connection_made(transport)
        self._guard.came(self)
        self._expect_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._guard.left(self)
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Have a slice parsed; the rest waits, and so does the client."""
        if self._backlog:
            self._backlog += data
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data[:SLICE_BYTES])
        requests = self._request_count - before
        if requests and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not requests and self._timer is None and self.idle:
            self._expect_request()
        if self._force_close or self._close or self.transport is None:
            return
        cost = COST_OF_SLICE + requests * COST_OF_REQUEST
        wait = self._budget.spend(cost, self._guard.loop.time())
        if wait or len(data) > SLICE_BYTES:
            self._backlog += data[SLICE_BYTES:]
            self._pause_transport_reading()
            if wait:
                self._guard.loop.call_later(wait, self._go_on)
            else:
                self._guard.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is None:
            return
        data, self._backlog = bytes(self._backlog), bytearray()
        if data:
            self._take(data)
        if not self._backlog and not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if not self._backlog:
            super()._resume_transport_reading()

    def _expect_request(self) -> None:
        """Whoever has begun a request, or has said nothing yet, has so much time from now on."""
        self._timer = self._guard.loop.call_later(REQUEST_SECONDS, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        if self.idle:
            self.drop()

    def drop(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP like every other error. Nothing of it is repeated: a secret may be in it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        if status >= 500:
            _log.error("http_request_failed", error=type(exc).__name__)
        self._guard.bad_requests += 1
        code, words = (
            ("bad_request", "this is no HTTP request") if status < 500 else ("internal", "the request failed")
        )
        response = web.Response(
            body=orjson.dumps({"error": {"code": code, "message": words}}),
            status=status,
            content_type="application/json",
            headers={"Server": "keepline"},
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say what kind of fault it was: its words may repeat headers."""
        _log.error("http_connection_failed", error=type(kw.get("exc_info")).__name__)


class Guard:
    """All connections to an endpoint."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.budget = Budget(ALL_RATE, ALL_BURST)
        self.bad_requests = 0
        self.dropped = 0
        self._open: dict[Guarded, None] = {}

    def factory(self, server: web.Server, **options: Any) -> Callable[[], asyncio.Protocol]:
        """The protocol factory of the listening socket."""
        return lambda: cast(asyncio.Protocol, Guarded(self, server, **options))

    def came(self, connection: Guarded) -> None:
        """A connection is there; if it is one too many, the oldest goes that nobody works for."""
        if len(self._open) >= MAX_CONNECTIONS:
            oldest = next((one for one in self._open if one.idle), connection)
            self.dropped += 1
            self._open.pop(oldest, None)
            oldest.drop()
            if oldest is connection:
                return
        self._open[connection] = None

    def left(self, connection: Guarded) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)

"""What the HTTP endpoint lets strangers do: little at a time, and never at the cost of whom the loop works for.

The endpoint shares its loop with a node's clients. The library parses whatever a read has brought in one go, waits for
ever for the end of a request, and logs garbage with a traceback. So here each connection gets a slice of its bytes
parsed at a time and a budget of work, a request that does not come to its end is cut off, and of too many connections
those go that have asked for nothing: a probe of `/livez` always finds a place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from keepline.ops.budget import Budget
from keepline.ops.turns import Turns

SLICE_BYTES = 1_024

COST_OF_REQUEST = 0.5
"""Milliseconds of the loop for the answer, rounded up; what the parser takes is measured."""

BURST_SECONDS = 2.0
"""The work of so many seconds may come at once."""

SHARE_OF_ONE = 0.5
"""What one connection may have of the work of all."""


@dataclass(frozen=True, slots=True)
class OpsLimits:
    """How many connections the endpoint holds, how long a request may take to arrive, and ms of work a second."""

    connections: int = 256
    request_seconds: float = 10.0
    work_ms: float = 200.0


_log = structlog.get_logger(__name__)


class Guarded(RequestHandler):
    """One connection to the endpoint."""

    def __init__(self, guard: Guard, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=guard.loop, **options)
        self._guard = guard
        self._budget = guard.new_budget()
        self._backlog = bytearray()
        self._waiting = False  # for a turn, or for credit
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
        """Keep what came until it is this connection's turn. Nothing is the library's: it goes on with what it has."""
        if not data:
            super().data_received(data)
            return
        self._backlog += data
        self._rest(0.0)

    def _rest(self, wait: float) -> None:
        """Read nothing until others have had their turn, or for so many seconds."""
        self._pause_transport_reading()
        if self._waiting:
            return
        self._waiting = True
        if wait:
            self._guard.turns.pauses += 1
            self._guard.loop.call_later(wait, self._guard.turns.ask, self)
        else:
            self._guard.turns.ask(self)

    def go_on(self) -> None:
        """Have a slice parsed; the rest waits, and so does the client."""
        self._waiting = False
        if self.transport is None:
            return
        data = bytes(self._backlog[:SLICE_BYTES])
        del self._backlog[:SLICE_BYTES]
        wait = self._parse(data) if data else self._budget.spend(0.0, self._guard.loop.time())
        if self._force_close or self._close or self.transport is None:
            return
        if wait or self._backlog:
            self._rest(wait)
        elif not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _parse(self, data: bytes) -> float:
        """Have the library parse; for how many seconds it is to have nothing more."""
        before, began = self._request_count, time.perf_counter()
        super().data_received(data)
        took, requests = time.perf_counter() - began, self._request_count - before
        if requests and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not requests and self._timer is None and self.idle:
            self._expect_request()
        return self._budget.spend(took * 1_000 + requests * COST_OF_REQUEST, self._guard.loop.time())

    def _resume_transport_reading(self) -> None:
        if not self._backlog and not self._waiting:
            super()._resume_transport_reading()

    def _expect_request(self) -> None:
        """Whoever has begun a request, or has said nothing yet, has so much time from now on."""
        self._timer = self._guard.loop.call_later(self._guard.limits.request_seconds, self._too_late)

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


class Guard(Collector):
    """All connections to an endpoint, and what is counted of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: OpsLimits | None = None) -> None:
        self.loop = loop
        self.limits = limits or OpsLimits()
        self.turns = Turns(loop)
        self.bad_requests = 0
        self.dropped = 0
        self._budget = Budget(self.limits.work_ms, self.limits.work_ms * BURST_SECONDS)
        self._open: dict[Guarded, None] = {}

    def new_budget(self) -> Budget:
        """What one connection may cost."""
        rate = self.limits.work_ms * SHARE_OF_ONE
        return Budget(rate, rate * BURST_SECONDS, self._budget)

    def factory(self, server: web.Server, **options: Any) -> Callable[[], asyncio.Protocol]:
        """The protocol factory of the listening socket."""
        return lambda: cast(asyncio.Protocol, Guarded(self, server, **options))

    def came(self, connection: Guarded) -> None:
        """A connection is there; if it is one too many, the oldest goes that nobody works for."""
        if len(self._open) >= self.limits.connections:
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

    def describe(self) -> Iterator[Metric]:
        """Nothing: all names of a program are looked at together, by a test."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield GaugeMetricFamily(
            "keepline_ops_connections", "Connections to the ops port.", value=len(self._open)
        )
        yield GaugeMetricFamily(
            "keepline_ops_connections_limit",
            "Connections to the ops port that there may be.",
            value=self.limits.connections,
        )
        yield CounterMetricFamily(
            "keepline_ops_connections_dropped",
            "Connections to the ops port that were cut because there were too many.",
            value=self.dropped,
        )
        yield CounterMetricFamily(
            "keepline_ops_bad_requests", "What came to the ops port and was no HTTP.", value=self.bad_requests
        )
        yield CounterMetricFamily(
            "keepline_ops_reads_paused",
            "How often a connection to the ops port was over its budget of work, and was not read for a while.",
            value=self.turns.pauses,
        )

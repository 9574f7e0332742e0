"""Protects the event loop from clients of the ops port.

The ops port shares its event loop with a node's clients. The library parses everything that a read returns at once,
waits indefinitely for the end of a request, and logs invalid input with a traceback. So here each connection has a work
budget, and its bytes are parsed in slices. A request that does not arrive in time is cut off. If there are too many
connections, idle ones are closed, so that a probe of `/livez` always finds a place.
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
"""Event loop time for an answer in ms, rounded up. The parser's time is measured."""

COST_OF_CONNECTION = 0.5
"""Event loop time for a connection that comes and goes, in ms."""

BURST_SECONDS = 1.0
"""Burst of work, in seconds' worth."""

SHARE_OF_ONE = 0.5
"""Share of the total work budget for one connection."""


@dataclass(frozen=True, slots=True)
class OpsLimits:
    """Maximum connections, seconds for a request to arrive, and ms of work per second."""

    connections: int = 256
    request_seconds: float = 10.0
    work_ms: float = 200.0


_log = structlog.get_logger(__name__)


class Guarded(RequestHandler):
    """One connection to the ops port."""

    def __init__(self, guard: Guard, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=guard.loop, **options)
        self._guard = guard
        self._budget = guard.new_budget()
        self._backlog = bytearray()
        self._waiting = False  # for a turn, or for credit
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no handler is working on a request of this connection."""
        return not self._request_in_progress

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, closing an idle connection if necessary."""
        super().connection_made(transport)
        self._budget.spend(COST_OF_CONNECTION, self._guard.loop.time())
        self._guard.came(self)
        self._expect_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the place."""
        self._guard.left(self)
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Store received data until it is this connection's turn. The library is not involved yet."""
        if not data:
            super().data_received(data)
            return
        self._backlog += data
        self._rest(0.0)

    def _rest(self, wait: float) -> None:
        """Pause reading until others have had their turn, or for that many seconds."""
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
        """Have a slice parsed. The rest waits, and so does the client."""
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
        """Have the library parse. Returns for how many seconds it must not get more."""
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
        """Start the timeout for a request that has begun, or for a connection that has sent nothing."""
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
        """Answer invalid HTTP with the usual JSON error. Nothing of it is echoed, because it may contain a secret."""
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
        """Log the type of an internal error only: its message may quote headers."""
        _log.error("http_connection_failed", error=type(kw.get("exc_info")).__name__)


class Guard(Collector):
    """All connections to the ops port, and their counters."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: OpsLimits | None = None) -> None:
        self.loop = loop
        self.limits = limits or OpsLimits()
        self.turns = Turns(loop)
        self.bad_requests = 0
        self.dropped = 0
        self._budget = Budget(self.limits.work_ms, self.limits.work_ms * BURST_SECONDS)
        self._open: dict[Guarded, None] = {}

    def new_budget(self) -> Budget:
        """The budget of one connection."""
        rate = self.limits.work_ms * SHARE_OF_ONE
        return Budget(rate, rate * BURST_SECONDS, self._budget)

    def factory(self, server: web.Server, **options: Any) -> Callable[[], asyncio.Protocol]:
        """The protocol factory of the listening socket."""
        return lambda: cast(asyncio.Protocol, Guarded(self, server, **options))

    def came(self, connection: Guarded) -> None:
        """A connection has opened. If there are too many, the oldest idle one is closed."""
        if len(self._open) >= self.limits.connections:
            oldest = next((one for one in self._open if one.idle), connection)
            self.dropped += 1
            self._open.pop(oldest, None)
            oldest.drop()
            if oldest is connection:
                return
        self._open[connection] = None

    def left(self, connection: Guarded) -> None:
        """A connection has closed."""
        self._open.pop(connection, None)

    def describe(self) -> Iterator[Metric]:
        """Describe nothing in advance; a test checks the names of all metrics of a program together."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current metrics."""
        yield GaugeMetricFamily(
            "keepline_ops_connections", "Connections to the ops port.", value=len(self._open)
        )
        yield GaugeMetricFamily(
            "keepline_ops_connections_limit",
            "Maximum number of connections to the ops port.",
            value=self.limits.connections,
        )
        yield CounterMetricFamily(
            "keepline_ops_connections_dropped",
            "Connections to the ops port that were closed because there were too many.",
            value=self.dropped,
        )
        yield CounterMetricFamily(
            "keepline_ops_bad_requests",
            "Requests to the ops port that were not valid HTTP.",
            value=self.bad_requests,
        )
        yield CounterMetricFamily(
            "keepline_ops_reads_paused",
            "Times that a connection to the ops port was not read for a while because it exceeded its work budget.",
            value=self.turns.pauses,
        )

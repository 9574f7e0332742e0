"""Metrics: one registry a program, and how late the event loop runs."""

from __future__ import annotations

import asyncio
import math
from importlib import metadata

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

_LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def new_registry(program: str) -> CollectorRegistry:
    """Return a registry of its own with the process, the collector of garbage, Python and the build in it.

    Not prometheus_client's global one: two programs in one process, as in tests, would clash there.
    """
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Info("keepline_build", "Which program of which version this is.", registry=registry)
    build.info({"program": program, "version": metadata.version("keepline")})
    return registry


class LoopLag:
    """Measures by how many seconds the event loop wakes a sleeper late: the wait that every client shares."""

    def __init__(self, registry: CollectorRegistry, interval: float = 0.25) -> None:
        """Sample every `interval` seconds once `run` has been started."""
        self._interval = interval
        self._lag = Histogram(
            "keepline_loop_lag_seconds",
            "How late the event loop ran a timer that was due.",
            buckets=(*_LAG_BUCKETS, math.inf),
            registry=registry,
        )
        self.last = 0.0

    def observe(self, due: float, now: float) -> None:
        """Record that a timer due at `due` ran at `now` (seconds of one clock)."""
        self.last = max(0.0, now - due)
        self._lag.observe(self.last)

    async def run(self) -> None:
        """Sample until cancelled; the caller owns the task."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            await asyncio.sleep(self._interval)
            self.observe(due, loop.time())

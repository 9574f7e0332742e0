"""Metrics: one registry per program, cheap histograms, health as gauges, event loop lag."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from importlib import metadata

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from keepline.ops.health import Health

_LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def new_registry(program: str) -> CollectorRegistry:
    """Return a new registry with metrics of the process, the garbage collector, Python and the build.

    It is not prometheus_client's global registry, where two programs in one process, as in tests, would clash.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Info("keepline_build", "Program and version; always 1.", registry=registry)
    build.info({"program": program, "version": metadata.version("keepline")})
    return registry


class Timings:
    """A histogram as plain numbers, for one thread: an observation costs a search and two additions.

    The library's own takes a lock for each, and ten times as long.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Take the upper bounds of the buckets in seconds, ascending, without infinity."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self._counts)

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add the counts to a metric family, with these label values."""
        buckets: list[Sequence[str | float | None]] = []
        total = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if math.isinf(bound) else str(bound), total))
        family.add_metric(labels, buckets, self._sum)  # type: ignore[arg-type]


class HealthCollector(Collector):
    """The content of `/readyz` and `/healthz`, as gauges."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> Iterator[Metric]:
        """Describe nothing in advance; a test checks the names of all metrics of a program together."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current metrics."""
        failed = self._health.failed()
        yield GaugeMetricFamily(
            "keepline_ready",
            "Whether the program accepts new work, as in /readyz.",
            value=not any(failed.values()),
        )
        conditions = GaugeMetricFamily(
            "keepline_condition_failed", "1 for a readiness condition that is not met.", labels=["condition"]
        )
        for name, why in failed.items():
            conditions.add_metric([name], why is not None)
        yield conditions
        up = GaugeMetricFamily("keepline_dependency_up", "Whether a dependency works.", labels=["dependency"])
        ages = GaugeMetricFamily(
            "keepline_dependency_proof_age_seconds",
            "Time since a dependency last worked; absent before the first time.",
            labels=["dependency"],
        )
        for name, dependency in self._health.dependencies.items():
            up.add_metric([name], dependency.status == "ok")
            if (age := dependency.age()) is not None:
                ages.add_metric([name], age)
        yield up
        yield ages


class LoopLag:
    """Measures how late the event loop wakes a sleeper, which delays every client."""

    def __init__(self, registry: CollectorRegistry, interval: float = 0.25) -> None:
        """Sample every `interval` seconds while `run` is running."""
        self._interval = interval
        self._lag = Histogram(
            "keepline_loop_lag_seconds",
            "How late the event loop ran a due timer.",
            buckets=(*_LAG_BUCKETS, math.inf),
            registry=registry,
        )
        self.last = 0.0

    def observe(self, due: float, now: float) -> None:
        """Record that a timer due at `due` ran at `now` (seconds of one clock)."""
        self.last = max(0.0, now - due)
        self._lag.observe(self.last)

    async def run(self) -> None:
        """Sample until cancelled. The caller owns the task."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            await asyncio.sleep(self._interval)
            self.observe(due, loop.time())

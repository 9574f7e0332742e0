"""Generates the text of all metrics in small steps: in one step it would delay clients by ten milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from keepline.ops.budget import Budget

SLICE_SECONDS = 0.001
"""Time after which other work has its turn."""

RATE_MS, BURST_MS = 50.0, 300.0
"""Time budget for generating, per second and at once. Beyond it, scrapes get the previous text."""


class _One(Collector):
    """A metric in the form for the library."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        """The metric alone."""
        yield self._metric


class MetricsText:
    """The metrics of a registry, shared by all scrapes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._budget = Budget(RATE_MS, BURST_MS)
        self._lock = asyncio.Lock()
        self._text = b""

    async def latest(self) -> bytes:
        """The current metrics, or those of a moment ago."""
        async with self._lock:
            if not self._text or not self._budget.spend(0.0, time.monotonic()):
                self._text = await self._written()
            return self._text

    async def _written(self) -> bytes:
        parts, began = [], time.monotonic()
        for metric in self._registry.collect():
            parts.append(generate_latest(_One(metric)))
            now = time.monotonic()
            if now - began > SLICE_SECONDS:
                self._budget.spend((now - began) * 1_000, now)
                await asyncio.sleep(0)
                began = time.monotonic()
        now = time.monotonic()
        self._budget.spend((now - began) * 1_000, now)
        return b"".join(parts)

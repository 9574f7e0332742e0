"""The text of all metrics, written a little at a time: all at once would keep clients waiting for ten milliseconds."""

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
"""After so long others have their turn."""

RATE_MS, BURST_MS = 50.0, 300.0
"""Time that writing may take, of each second and at once. Beyond it who asks gets what was written last."""


class _One(Collector):
    """A metric as the library wants it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        """The metric alone."""
        yield self._metric


class MetricsText:
    """The metrics of a registry, for all who ask."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._budget = Budget(RATE_MS, BURST_MS)
        self._lock = asyncio.Lock()
        self._text = b""

    async def latest(self) -> bytes:
        """The metrics as they are now, or as they were a moment ago."""
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

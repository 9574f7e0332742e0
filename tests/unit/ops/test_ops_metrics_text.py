"""The text of the metrics: what the library writes, in slices, within a budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from keepline.ops import metrics_text
from keepline.ops.metrics import new_registry
from keepline.ops.metrics_text import MetricsText


class Counted(Collector):
    """How often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        self.times += 1
        yield GaugeMetricFamily("times", "How often.", value=self.times)


async def test_the_text_is_what_the_library_writes() -> None:
    registry = CollectorRegistry()
    registry.register(Counted())
    new_registry("test")
    assert await MetricsText(registry).latest() == generate_latest(registry).replace(b"2.0", b"1.0")


async def test_others_have_their_turn_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_text, "SLICE_SECONDS", -1.0)
    registry = CollectorRegistry()
    turns: list[str] = []
    for name in ("a", "b"):
        registry.register(_Named(name, turns))
    loop = asyncio.get_running_loop()
    loop.call_soon(turns.append, "another")
    assert await MetricsText(registry).latest()
    assert turns == ["a", "another", "b"]


class _Named(Collector):
    def __init__(self, name: str, notes: list[str]) -> None:
        self._name, self._notes = name, notes

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        self._notes.append(self._name)
        yield GaugeMetricFamily(self._name, "It.", value=1)


async def test_who_asks_too_often_gets_what_was_written_last() -> None:
    registry = CollectorRegistry()
    registry.register(Counted())
    text = MetricsText(registry)
    first, second = await text.latest(), await text.latest()
    assert first != second
    text._budget.spend(1e9, time.monotonic())
    assert await text.latest() == second

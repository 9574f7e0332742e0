"""Metrics as they are shown, from plain numbers."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from keepline.ops.metrics import Timings


def counter(name: str, meaning: str, label: str, values: dict[str, int]) -> Metric:
    """A counter with a label, by its values."""
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def histogram(name: str, meaning: str, timings: Timings) -> Metric:
    """A histogram of times."""
    family = HistogramMetricFamily(name, meaning)
    timings.add_to(family)
    return family

"""Metrics of signals, on this node and between nodes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from signal_node.app import App
from signal_node.metrics.families import counter, histogram


def signals(app: App) -> Iterator[Metric]:
    """What became of signals."""
    counts = app.signals.relay.counts
    yield counter(
        "keepline_signals",
        "Frames between peers, by path.",
        "path",
        {
            "here": counts.relayed_here,
            "across": counts.relayed_across,
            "received": counts.received_across,
            "dropped": counts.dropped + app.signals.outbox.dropped,
            "slow": counts.slow,
        },
    )
    yield histogram(
        "keepline_relay_seconds",
        "Time from decoding a frame to writing it to a peer on the same node; sampled.",
        counts.seconds,
    )
    yield histogram(
        "keepline_internode_latency_seconds",
        "Time from decoding a frame on another node to unpacking it here; sampled.",
        app.signals.inbox.latency,
    )


def bus(app: App) -> Iterator[Metric]:
    """Inbox and outbox."""
    inbox, outbox = app.signals.inbox, app.signals.outbox
    yield GaugeMetricFamily(
        "keepline_inbox_silent",
        "Whether nothing has arrived through this node's inbox for 3 s.",
        value=inbox.health.silent,
    )
    yield CounterMetricFamily(
        "keepline_inbox_silent_seconds",
        "Time for which this node's inbox was silent.",
        value=inbox.health.silent_seconds,
    )
    yield CounterMetricFamily(
        "keepline_inbox_gaps", "Packets from other nodes that were missed.", value=inbox.gaps
    )
    yield CounterMetricFamily("keepline_bus_packets", "Packets sent to other nodes.", value=outbox.packets)
    yield GaugeMetricFamily(
        "keepline_bus_queued", "Frames waiting to be sent to other nodes.", value=outbox.queued
    )

"""Metrics of this node among the others."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from signal_node.app import App


def cluster_metrics(app: App) -> Iterator[Metric]:
    """Nodes, deadlines, recovery."""
    cluster = app.cluster
    yield GaugeMetricFamily(
        "keepline_nodes", "Live nodes, as this one sees them.", value=len(cluster.view.live)
    )
    yield CounterMetricFamily(
        "keepline_nodes_buried",
        "Dead nodes for which this node released the last sides.",
        value=cluster.burial.buried,
    )
    yield GaugeMetricFamily(
        "keepline_crowded",
        "Whether the node is still letting in a crowd: hellos have waited, or were told to retry later.",
        value=app.admission.crowding.crowded(app.around.loop.time()),
    )
    yield GaugeMetricFamily(
        "keepline_hellos_waiting",
        "Hellos without an answer yet.",
        value=app.admission.crowding.waiting,
    )
    yield GaugeMetricFamily(
        "keepline_graces_extended",
        "Rooms that this node has not ended only because the cluster is letting in a crowd.",
        value=cluster.deadlines.extended,
    )
    yield GaugeMetricFamily("keepline_draining", "Whether the node is draining.", value=app.around.draining())
    yield GaugeMetricFamily(
        "keepline_clock_skew_seconds",
        "How far Redis' clock is ahead of this machine's.",
        value=app.around.clock.seconds() - time.time(),
    )
    yield CounterMetricFamily(
        "keepline_clock_steps",
        "Steps of Redis' clock that this node removed from the cluster's time.",
        value=cluster.heartbeat.clock_sync.steps,
    )
    recovered = app.recovery.counts
    yield CounterMetricFamily(
        "keepline_partitions_recovered",
        "Partitions that this node restored after Redis had lost them.",
        value=recovered.partitions,
    )
    yield CounterMetricFamily(
        "keepline_rooms_revived",
        "Rooms that this node restored from Postgres.",
        value=app.recovery.revival.counts.revived,
    )
    yield CounterMetricFamily(
        "keepline_rows_unreadable",
        "Rooms in Postgres that could not be read, and were not restored.",
        value=app.recovery.unreadable_rows,
    )

"""The node's metrics, read from plain numbers when they are asked for: counting costs the relay an addition."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signal_node.parts import Parts


class NodeCollector(Collector):
    """What a node has counted."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Iterator[Metric]:
        """The metrics' names, without their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        parts = self._parts
        counts, commits, requests = parts.node.counts, parts.rooms.counts, parts.requests.counts
        compared, recovered = parts.reconciler.counts, parts.recovery.counts
        signals = CounterMetricFamily(
            "keepline_signals", "Frames from peer to peer, by what became of them.", labels=["path"]
        )
        signals.add_metric(["here"], counts.relayed_here)
        signals.add_metric(["across"], counts.relayed_across)
        signals.add_metric(["received"], counts.received_across)
        signals.add_metric(["dropped"], counts.dropped)
        yield signals
        results = CounterMetricFamily(
            "keepline_commits", "Attempts to store a change of a room.", labels=["result"]
        )
        results.add_metric(["done"], commits.commits)
        results.add_metric(["conflict"], commits.conflicts)
        results.add_metric(["refused"], commits.refused)
        results.add_metric(["unavailable"], commits.unavailable)
        yield results
        logins = CounterMetricFamily("keepline_logins", "Tokens that were checked.", labels=["result"])
        logins.add_metric(["ok"], requests.accepted)
        logins.add_metric(["refused"], requests.refused)
        yield logins
        limited = CounterMetricFamily(
            "keepline_limited", "What was refused because its address had had its share.", labels=["limit"]
        )
        limited.add_metric(["connections"], parts.limits.counts.connections)
        limited.add_metric(["logins"], parts.limits.counts.logins)
        yield limited
        yield CounterMetricFamily("keepline_resumes", "Sessions that were resumed.", value=requests.resumed)
        yield CounterMetricFamily(
            "keepline_replaced",
            "Connections closed because their user connected again.",
            value=counts.replaced,
        )
        yield GaugeMetricFamily("keepline_sessions", "Open connections.", value=len(parts.node.clients))
        yield GaugeMetricFamily(
            "keepline_cached_rooms", "Rooms with a side on this node.", value=len(parts.rooms)
        )
        yield GaugeMetricFamily(
            "keepline_journal_length", "Changes that wait to be stored.", value=parts.rooms.waiting
        )
        yield CounterMetricFamily(
            "keepline_deaf_seconds", "Time in which the own inbox was silent.", value=parts.bus.deaf_seconds
        )
        yield CounterMetricFamily(
            "keepline_inbox_gaps", "Packets of other nodes that were missed.", value=parts.bus.gaps
        )
        yield CounterMetricFamily(
            "keepline_notice_gaps", "Notices that came after one that was missed.", value=commits.gaps
        )
        yield CounterMetricFamily(
            "keepline_rooms_put_back",
            "Rooms stored again after Redis had lost them.",
            value=compared.put_back,
        )
        yield CounterMetricFamily(
            "keepline_partitions_recovered", "Partitions healed by this node.", value=recovered.partitions
        )
        yield CounterMetricFamily(
            "keepline_rooms_revived",
            "Rooms brought back from Postgres by this node.",
            value=recovered.revived,
        )

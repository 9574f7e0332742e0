"""The node's metrics, read from plain numbers when they are asked for: counting costs the relay an addition."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signal_node.bus import Bus
from signal_node.node import Node
from signal_node.recovery import Recovery


class NodeCollector(Collector):
    """What a node has counted."""

    def __init__(self, node: Node, bus: Bus, recovery: Recovery) -> None:
        self._node = node
        self._bus = bus
        self._recovery = recovery

    def describe(self) -> Iterator[Metric]:
        """The metrics' names, without their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        counts, commits = self._node.counts, self._node.rooms.counts
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
        logins.add_metric(["ok"], counts.logins)
        logins.add_metric(["refused"], counts.logins_failed)
        yield logins
        yield CounterMetricFamily("keepline_resumes", "Sessions that were resumed.", value=counts.resumed)
        yield CounterMetricFamily(
            "keepline_replaced",
            "Connections closed because their user connected again.",
            value=counts.replaced,
        )
        yield GaugeMetricFamily("keepline_sessions", "Open connections.", value=len(self._node.clients))
        yield GaugeMetricFamily(
            "keepline_cached_rooms", "Rooms with a side on this node.", value=len(self._node.rooms)
        )
        yield GaugeMetricFamily(
            "keepline_journal_length", "Changes that wait to be stored.", value=self._node.rooms.waiting
        )
        yield CounterMetricFamily(
            "keepline_deaf_seconds", "Time in which the own inbox was silent.", value=self._bus.deaf_seconds
        )
        yield CounterMetricFamily(
            "keepline_inbox_gaps", "Packets of other nodes that were missed.", value=self._bus.gaps
        )
        yield CounterMetricFamily(
            "keepline_notice_gaps", "Notices that came after one that was missed.", value=commits.gaps
        )
        yield CounterMetricFamily(
            "keepline_rooms_put_back", "Rooms stored again after Redis had lost them.", value=commits.put_back
        )
        recovered = self._recovery.counts
        yield CounterMetricFamily(
            "keepline_partitions_recovered", "Partitions healed by this node.", value=recovered.partitions
        )
        yield CounterMetricFamily(
            "keepline_rooms_revived",
            "Rooms brought back from Postgres by this node.",
            value=recovered.revived,
        )

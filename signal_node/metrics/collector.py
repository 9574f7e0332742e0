"""The node's metrics, read from plain numbers during a scrape, so that counting costs the relay only an addition.

`docs/metrics.md` lists them, and a test compares the two. No label contains a room or a user.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from signal_node.app import App
from signal_node.metrics import clients, cluster, rooms, signals
from signal_node.transport.listener import Listener


class NodeCollector(Collector):
    """What a node has counted. Values that did not occur are shown as 0, so that rates work from the first one on."""

    def __init__(self, app: App, listener: Listener) -> None:
        self._app = app
        self._listener = listener

    def describe(self) -> Iterator[Metric]:
        """Nothing: all names of a program are looked at together, by a test."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        app = self._app
        yield from signals.signals(app)
        yield from rooms.calls(app)
        yield from rooms.rooms(app)
        yield from clients.connections(app)
        yield from clients.logins(app)
        yield from clients.limits(app, self._listener)
        yield from clients.turn(app)
        yield from signals.bus(app)
        yield from cluster.cluster_metrics(app)

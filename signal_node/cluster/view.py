"""The cluster as this node last saw it. Pure: the time is an argument, in seconds of one clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from signal_node.cluster.registry import HEARTBEAT_TTL_MS

RECENT_SECONDS = HEARTBEAT_TTL_MS / 1_000 + 1.0
"""How long after it was last seen a node counts as recently live."""


def process_name(node: str, started_at: int) -> str:
    """A name for one process of a node, for when a restart matters."""
    return f"{node}@{started_at}"


class ClusterView:
    """The live nodes and the content of their heartbeats."""

    def __init__(self, node: str) -> None:
        self.live: list[str] = []
        self._node = node
        self._statuses: Mapping[str, Mapping[str, Any]] = {}
        self._seen_at: dict[str, float] = {}
        self._processes: set[str] = set()

    def read(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the heartbeats of the live nodes."""
        self._statuses = statuses
        self._processes = {
            process_name(name, status.get("started_at", 0))
            for name, status in statuses.items()
            if name != self._node
        }

    def saw(self, statuses: Mapping[str, Mapping[str, Any]], now: float) -> bool:
        """Store the live nodes and their heartbeats at `now`. Returns whether the set of live nodes has changed."""
        self.read(statuses)
        live = list(statuses)
        self._seen_at |= dict.fromkeys(live, now)
        self._seen_at = {name: at for name, at in self._seen_at.items() if now - at < RECENT_SECONDS}
        changed = live != self.live
        self.live = live
        return changed

    def crowded(self) -> bool:
        """Whether any node is letting in a crowd."""
        return any(status.get("crowded") for status in self._statuses.values())

    def all_started_since(self, at: int) -> bool:
        """Whether the whole cluster has started since `at`, in ms of its time."""
        return all(status.get("started_at", 0) > at for status in self._statuses.values())

    def recently_live(self) -> set[str]:
        """The nodes that were live a moment ago, even if Redis has forgotten them since."""
        return {self._node, *self._seen_at}

    def is_recently_live(self, node: str) -> bool:
        """Whether a node was live a moment ago."""
        return node == self._node or node in self._seen_at

    def other_processes(self) -> set[str]:
        """The live processes of other nodes, by `process_name`: a restarted node is another process."""
        return self._processes

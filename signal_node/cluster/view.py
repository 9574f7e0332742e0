"""The cluster as this node last saw it. Pure: the time is an argument, in seconds of one clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from signal_node.cluster.registry import HEARTBEAT_TTL_MS

RECENT_SECONDS = HEARTBEAT_TTL_MS / 1_000 + 1.0
"""How long after it was last seen a node counts as recently live."""


def process_name(node: str, started_at: int) -> str:
    """What a process of a node is called where its end matters at once."""
    return f"{node}@{started_at}"


class ClusterView:
    """Which nodes live, and what they say of themselves."""

    def __init__(self, node: str) -> None:
        self.live: list[str] = []
        self._node = node
        self._statuses: Mapping[str, Mapping[str, Any]] = {}
        self._seen_at: dict[str, float] = {}
        self._processes: set[str] = set()

    def read(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Take what the living nodes say."""
        self._statuses = statuses
        self._processes = {
            process_name(name, status.get("started_at", 0))
            for name, status in statuses.items()
            if name != self._node
        }

    def saw(self, statuses: Mapping[str, Mapping[str, Any]], now: float) -> bool:
        """Note at `now` which nodes live, and take what they say; whether other nodes live than before."""
        self.read(statuses)
        live = list(statuses)
        self._seen_at |= dict.fromkeys(live, now)
        self._seen_at = {name: at for name, at in self._seen_at.items() if now - at < RECENT_SECONDS}
        changed = live != self.live
        self.live = live
        return changed

    def crowded(self) -> bool:
        """Whether any node is taking in a crowd."""
        return any(status.get("crowded") for status in self._statuses.values())

    def all_started_since(self, at: int) -> bool:
        """Whether the whole cluster has started since `at`, in ms of its time."""
        return all(status.get("started_at", 0) > at for status in self._statuses.values())

    def recently_live(self) -> set[str]:
        """The nodes that lived a moment ago, also if Redis has forgotten them since."""
        return {self._node, *self._seen_at}

    def is_recently_live(self, node: str) -> bool:
        """Whether a node lived a moment ago."""
        return node == self._node or node in self._seen_at

    def other_processes(self) -> set[str]:
        """The processes of other nodes that live, by `process_name`: a node that starts again is another process."""
        return self._processes

"""This node as a member of the cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from signal_node.cluster.burial import Burial
from signal_node.cluster.deadlines import DeadlineWorker
from signal_node.cluster.heartbeat import Heartbeat
from signal_node.cluster.registry import Registry
from signal_node.cluster.view import ClusterView
from signal_node.ice.turn_check import TurnChecks
from signal_node.signaling.admission import Admission
from signal_node.transport.connections import Connections
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.settings import advertised
from signal_node.wiring.signals import SignalParts
from signal_node.wiring.surroundings import Surroundings


class NodeStatus:
    """The content of this node's heartbeat: its address, state and load."""

    def __init__(
        self,
        around: Surroundings,
        clients: Connections,
        rooms: RoomParts,
        signals: SignalParts,
        deadlines: DeadlineWorker,
        turn: TurnChecks,
        admission: Admission,
    ) -> None:
        self._around = around
        self._clients = clients
        self._rooms = rooms.cache
        self._inbox = signals.inbox.health
        self._deadlines = deadlines
        self._turn = turn
        self._crowding = admission.crowding
        self._ops_url = advertised(around.settings, around.settings.ops_port)

    def ops_port_opened(self, host: str, port: int) -> None:
        """The ops port is open, possibly on another port number than requested."""
        self._ops_url = advertised(self._around.settings, port, host)

    def __call__(self) -> Mapping[str, Any]:
        """The current content of the heartbeat."""
        around = self._around
        return {
            "host": around.settings.host,
            "port": around.settings.port,
            "ops": self._ops_url,
            "pid": os.getpid(),
            "state": "draining" if around.draining() else "ready",
            "sessions": len(self._clients),
            "rooms": len(self._rooms),
            "journal": self._rooms.waiting,
            "deaf": self._inbox.silent,
            "turn_down": self._turn.down,
            "crowded": self._crowding.crowded(around.loop.time()),
            "graces_extended": self._deadlines.extended,
        }


class ClusterParts:
    """Heartbeat, cleanup after dead nodes, and room deadlines."""

    def __init__(
        self,
        around: Surroundings,
        clients: Connections,
        rooms: RoomParts,
        signals: SignalParts,
        turn: TurnChecks,
        admission: Admission,
    ) -> None:
        node, clock = around.node, around.clock
        self.registry = Registry(around.client, node)
        self.view = ClusterView(node)
        self.deadlines = DeadlineWorker(
            node, rooms.cache, rooms.commands, rooms.store, rooms.rules, self.view.crowded, clock.now
        )
        self.status = NodeStatus(around, clients, rooms, signals, self.deadlines, turn, admission)
        self.heartbeat = Heartbeat(node, self.registry, clock, self.status)
        self.burial = Burial(
            node,
            self.view,
            self.heartbeat,
            self.registry,
            clock,
            rooms.cache,
            rooms.store,
            rooms.sessions,
            rooms.commands,
            on_nodes=self.deadlines.use_nodes,
            crowd_waits=admission.crowd_waits,
            cold_start_grace_ms=around.cold_start_grace_ms,
        )

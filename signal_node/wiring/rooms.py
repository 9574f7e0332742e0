"""The rooms of this node, and the sessions that they concern."""

from __future__ import annotations

import secrets

from keepline.room.writes import write_ids
from signal_node.rooms.cache import Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.rooms.suspicions import Suspicions
from signal_node.rooms.timely import TimelyChanges
from signal_node.rooms.tombstones import Tombstones
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.signaling.room_commands import RoomCommands
from signal_node.telemetry.call_counts import CallCounter
from signal_node.telemetry.room_gauges import RoomGauges
from signal_node.transport.connections import Connections
from signal_node.wiring.settings import rules_of
from signal_node.wiring.surroundings import Surroundings


class RoomParts:
    """The cache, the store, and the reconciler."""

    def __init__(self, around: Surroundings, clients: Connections) -> None:
        node, now = around.node, around.clock.now
        self.rules = rules_of(around.settings)
        self.store = RoomStore(around.client, around.partitions, around.tombstone_ms, around.batches, now)
        self.tombstones = Tombstones(around.client, around.partitions, now)
        self.sessions = LocalSessions(node, clients, around.loop)
        self.call_counts = CallCounter()
        suspicions = Suspicions()
        self.cache = Rooms(
            node,
            self.store,
            self.rules,
            self.sessions,
            now=now,
            new_write_id=around.new_write_id,
            on_gap=suspicions.look_at,
            on_loss=suspicions.lost,
            on_committed=self.call_counts.committed,
        )
        self.timely = TimelyChanges(
            self.store,
            self.cache,
            self.rules,
            now=now,
            new_write_id=write_ids(node, secrets.token_hex(4)),
            on_gap=suspicions.look_at,
            on_committed=self.call_counts.committed,
        )
        self.reconciler = Reconciler(node, self.cache, suspicions, self.store, self.sessions, self.rules, now)
        self.commands = RoomCommands(self.cache, around.loop)
        self.gauges = RoomGauges(node, self.cache)

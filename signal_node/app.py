"""One complete node, and which of its parts run as tasks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from random import random

from keepline.ops import redis
from keepline.ops.redis.batches import Batches
from keepline.ops.settings import NodeSettings
from keepline.ops.tasks import Tasks
from keepline.room.writes import write_ids
from signal_node.cluster.clock import Clock
from signal_node.http.idempotency import IdempotencyKeys
from signal_node.ice.servers import run_refresh
from signal_node.ice.turn_check import TurnChecks
from signal_node.rooms.archive import Archive
from signal_node.signaling.admission import Admission
from signal_node.signaling.drain import Drain
from signal_node.signaling.work import Work
from signal_node.users.ownership import Users
from signal_node.wiring.clients import ClientParts
from signal_node.wiring.cluster import ClusterParts
from signal_node.wiring.http import referrals_of, repairs_of
from signal_node.wiring.limits import LimitParts
from signal_node.wiring.recovery import recovery_of
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.settings import connections_of, ice_of
from signal_node.wiring.signals import SignalParts
from signal_node.wiring.surroundings import Surroundings


class App:
    """The parts of a node, in the order of their dependencies."""

    def __init__(
        self,
        settings: NodeSettings,
        loop: asyncio.AbstractEventLoop,
        client: redis.Client,
        partitions: int,
        archive: Archive | None,
        draining: Callable[[], bool],
        clock: Clock | None = None,
        uniform: Callable[[], float] = random,
    ) -> None:
        """`draining()` is whether the node is about to stop. `clock` replaces this machine's in tests."""
        node = settings.node_id
        around = self.around = Surroundings(
            settings,
            loop,
            client,
            partitions,
            Batches(client),
            archive,
            clock or Clock(),
            draining,
            write_ids(node, secrets.token_hex(4)),
        )
        self.connections = clients = connections_of(settings, loop)
        self.rooms = rooms = RoomParts(around, clients)
        self.signals = signals = SignalParts(around, clients, rooms)
        self.ice = ice_of(settings)
        self.turn = TurnChecks(self.ice, node, settings.turn_check_seconds)
        self.work = Work(loop)
        self.admission = Admission(self.work, settings.limit_hello_wait_seconds, loop.time)
        self.cluster = cluster = ClusterParts(around, clients, rooms, signals, self.turn, self.admission)
        self.limits = limits = LimitParts(around, clients, cluster)
        self.users = Users(
            client, node, around.clock.now, around.batches, on_replaced=signals.takeover.replace
        )
        self.recovery = recovery_of(around, rooms, cluster, limits, self.users)
        self.clients = ClientParts(
            around,
            clients,
            rooms,
            signals,
            cluster,
            limits,
            self.users,
            self.recovery,
            self.ice,
            self.work,
            self.admission,
        )
        self.drain = Drain(clients, rooms.cache, signals.negotiation_log.negotiated_at, uniform)
        self.idempotency = IdempotencyKeys(client, partitions, around.tombstone_ms, around.clock.now)
        self.referrals = referrals_of(around)
        self.repairs = repairs_of(around, rooms, cluster, self.users, self.recovery)

    def start(self, tasks: Tasks) -> None:
        """Start everything that runs beside the clients' connections."""
        rooms, signals, cluster, clients = self.rooms, self.signals, self.cluster, self.clients
        running = {
            "inbox": signals.inbox.run,
            "probes": signals.outbox.run_prober,
            "bus": signals.outbox.run,
            "commits": rooms.cache.run,
            "reconciler": rooms.reconciler.run,
            "heartbeat": cluster.heartbeat.run,
            "reaper": cluster.burial.run,
            "recovery": self.recovery.run,
            "recalls": self.recovery.recalls.run,
            "tombstones": rooms.tombstones.run,
            "deadlines": cluster.deadlines.run,
            "failed-logins": self.limits.failed_logins.run,
            "connections": self.limits.open_connections.run,
            "census": rooms.gauges.run,
            "admission": self.admission.run,
            "users": self.users.run,
            "stalls": self.connections.stalls.run,
            "sweep": self.connections.run_sweep,
            "turn-credentials": lambda: run_refresh(self.ice, self.connections),
            "turn-checks": self.turn.run,
        }
        if clients.jwks is not None:
            running["jwks"] = clients.jwks.run
        for name, run in running.items():
            tasks.start(name, run, restart=True)

"""How the parts of a node are put together, and which of them run as tasks."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from keepline.ops import program, redis
from keepline.ops.origins import Origins
from keepline.ops.redis.batches import Batches
from keepline.ops.settings import NodeSettings
from keepline.ops.tasks import Tasks
from keepline.room.rules import Rules
from keepline.room.writes import write_ids
from signal_node.bus.bus import Bus
from signal_node.bus.publisher import RedisPublisher
from signal_node.cluster.clock import Clock
from signal_node.cluster.deadlines import DeadlineWorker
from signal_node.cluster.epochs import Epochs
from signal_node.cluster.membership import ClusterMembership
from signal_node.cluster.recovery import Recovery
from signal_node.cluster.registry import Registry
from signal_node.cluster.revival import Revival
from signal_node.http.referrals import Referrals
from signal_node.http.repairs import Repairs
from signal_node.ice.servers import IceServers, run_refresh
from signal_node.ice.turn_check import TurnChecks
from signal_node.limits.address_limits import AddressLimits
from signal_node.limits.failed_logins import FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.rates import Rates
from signal_node.limits.sockets import Sockets
from signal_node.protocol.session import SessionLimits
from signal_node.rooms.archive import Archive
from signal_node.rooms.cache import Rooms
from signal_node.rooms.reconcile import Reconciler
from signal_node.rooms.store import RoomStore
from signal_node.rooms.suspicions import Suspicions
from signal_node.rooms.tombstones import Tombstones
from signal_node.signaling.login import Login
from signal_node.signaling.node import Node
from signal_node.signaling.reports import Reports
from signal_node.signaling.requests import Requests
from signal_node.signaling.rooms_of_users import RoomsOfUsers
from signal_node.signaling.work import Work
from signal_node.telemetry.call_counts import CallCounter
from signal_node.telemetry.room_gauges import RoomGauges
from signal_node.transport.budget import Allowances
from signal_node.transport.connections import Connections
from signal_node.transport.listener import Listener
from signal_node.users.ownership import Users
from signal_node.users.tokens import Jwks, Verifier

RESERVED_DESCRIPTORS = 128
"""Left for the port of the operators, Redis, Postgres and files, however many clients come."""

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound

_DAY_SECONDS = 86_400.0

PING_SHARE = 0.4
"""Of the silence after which a node pings: a client that asks this often, and waits as long again, knows first."""


class App:
    """One node, whole."""

    def __init__(
        self,
        settings: NodeSettings,
        loop: asyncio.AbstractEventLoop,
        client: redis.Client,
        partitions: int,
        archive: Archive | None,
        draining: Callable[[], bool],
        clock: Clock | None = None,
    ) -> None:
        """Take `draining()`, whether the node is about to stop, and the clock where it is not this machine's."""
        self._settings = settings
        self.listener: Listener | None = None
        self.draining = draining
        self.turn_configured = bool(settings.turn_urls)
        name = settings.node_id
        cold_start_grace_ms = round(settings.cold_start_grace_seconds * 1_000)
        tombstone_ms = round(settings.tombstone_seconds * 1_000)
        rules, new_write_id = rules_of(settings), write_ids(name, secrets.token_hex(4))
        self.clock = clock or Clock()
        self.ops_url = advertised(settings, settings.ops_port)
        self.node = Node(name, _clients(settings, loop), loop)
        self.batches = Batches(client)
        store = RoomStore(client, partitions, tombstone_ms, self.batches, self.clock.now)
        self.tombstones = Tombstones(client, partitions, self.clock.now)
        self.call_counts = CallCounter()
        suspicions = Suspicions()
        self.rooms = Rooms(
            name,
            store,
            rules,
            self.node,
            now=self.clock.now,
            new_write_id=new_write_id,
            on_gap=suspicions.look_at,
            on_loss=suspicions.lost,
            on_committed=self.call_counts.committed,
        )
        self.reconciler = Reconciler(name, self.rooms, suspicions, store, self.node, rules, self.clock.now)
        self.room_gauges = RoomGauges(name, self.rooms)
        self.bus = Bus(
            client,
            RedisPublisher(client),
            name,
            self.node,
            self.clock.monotonic,
            partitions=partitions,
            clock=self.clock.seconds,
        )
        self.users = users = Users(client, name, self.clock.now, self.batches, on_replaced=self.node.replace)
        self.ice = IceServers(settings.stun_urls, settings.turn_urls, secret_of(settings.turn_secret) or "")
        self.turn = TurnChecks(self.ice, name, settings.turn_check_seconds)
        self.logins = FailedLogins(
            client,
            partitions,
            settings.limit_failed_logins,
            round(settings.limit_failed_login_window_seconds * 1_000),
            self.clock.now,
            self.batches,
        )
        self.limits = AddressLimits(
            self.node.clients,
            self.logins,
            settings.trusted_proxies,
            Sockets(
                settings.limit_connections or program.descriptors() - RESERVED_DESCRIPTORS,
                settings.limit_connections_per_ip,
                settings.trusted_proxies,
            ),
            Rates(
                _allowances(settings),
                self.node.clients.new_bucket,
                settings.limit_logins_per_second or settings.limit_connections_per_ip / 4,
                settings.limit_connections_per_ip,
            ),
        )
        self.work = Work(loop)
        self.jwks = None if settings.jwks_url is None else Jwks(settings.jwks_url, time.monotonic)
        verifier = _verifier(settings, self.jwks)
        self.login = Login(
            self.node,
            RoomsOfUsers(self.node, store.lookups, self.work, self._bring_back_rooms_of),
            verifier,
            self.ice,
            self.limits,
            self.work,
            lambda node: node in self.membership.recently_live(),
            settings.limit_hello_wait_seconds,
        )
        self.requests = Requests(
            self.node,
            self.login,
            archive,
            Reports(client, store, settings.limit_reports_per_room, self.clock.now),
            self.work,
        )
        self.referrals = Referrals(
            client,
            partitions,
            archive,
            keep_seconds=settings.keep_referrals_days * _DAY_SECONDS,
            now=self.clock.now,
        )
        self.node.connect(
            self.rooms,
            store,
            users,
            self.bus,
            self.reconciler,
            self.requests.begin,
            self.login.gone,
            self.limits,
            draining,
        )
        self.registry = Registry(client, name)
        self.timekeeper = DeadlineWorker(
            self.node, store, rules, lambda: self.membership.crowded, self.clock.now
        )
        self.membership = ClusterMembership(
            self.node,
            self.registry,
            self.clock,
            partitions,
            status=self.status,
            on_nodes=self.timekeeper.use_nodes,
            on_clock_step=self._put_back_again,
            cold_start_grace_ms=cold_start_grace_ms,
        )
        self.connections = self.limits.connections = OpenConnections(
            client,
            partitions,
            self.membership.process,
            settings.limit_connections_per_ip,
            others=self.membership.other_processes,
            now=self.clock.now,
            refuse=self.limits.refuse,
        )
        self.recovery = Recovery(
            name,
            self.rooms,
            self.reconciler,
            store,
            users,
            Epochs(client, partitions),
            self.registry,
            archive,
            self.limits,
            Revival(
                store, rules, grace_ms=cold_start_grace_ms, now=self.clock.now, new_write_id=new_write_id
            ),
            tombstone_ms=tombstone_ms,
            live=self.membership.recently_live,
        )

        self.repairs = Repairs(self.node, self.registry, self.reconciler, self.recovery, rules)

    async def _bring_back_rooms_of(self, user: str) -> bool:
        return await self.recovery.bring_back_rooms_of(user)

    def _put_back_again(self) -> None:
        self.recovery.put_back_again()

    def status(self) -> Mapping[str, Any]:
        """What the heartbeat says of this node: where it is, what it does, how much it has to do."""
        return {
            "host": self._settings.host,
            "port": self._settings.port,
            "ops": self.ops_url,
            "pid": os.getpid(),
            "state": "draining" if self.draining() else "ready",
            "sessions": len(self.node.clients),
            "rooms": len(self.rooms),
            "journal": self.rooms.waiting,
            "deaf": self.bus.inbox_silent,
            "turn_down": self.turn.down,
            "crowded": self.login.crowding.crowded(self.node.now()),
            "graces_extended": self.timekeeper.extended,
        }

    def start(self, tasks: Tasks) -> None:
        """Start all that runs beside the clients' connections."""
        tasks.start("inbox", self.bus.run_receiver, restart=True)
        tasks.start("probes", self.bus.run_prober, restart=True)
        tasks.start("bus", self.bus.run_sender, restart=True)
        tasks.start("commits", self.rooms.run, restart=True)
        tasks.start("reconciler", self.reconciler.run, restart=True)
        tasks.start("heartbeat", self.membership.run_heartbeat, restart=True)
        tasks.start("reaper", self.membership.run_reaper, restart=True)
        tasks.start("recovery", self.recovery.run, restart=True)
        tasks.start("recalls", self.recovery.recalls.run, restart=True)
        tasks.start("tombstones", self.tombstones.run, restart=True)
        tasks.start("deadlines", self.timekeeper.run, restart=True)
        tasks.start("failed-logins", self.logins.run, restart=True)
        if self.jwks is not None:
            tasks.start("jwks", self.jwks.run, restart=True)
        tasks.start("connections", self.connections.run, restart=True)
        tasks.start("census", self.room_gauges.run, restart=True)
        tasks.start("hellos", self.login.run, restart=True)
        tasks.start("users", self.users.run, restart=True)
        tasks.start("stalls", self.node.clients.stalls.run, restart=True)
        tasks.start("sweep", self.node.clients.run_sweep, restart=True)
        tasks.start("turn-credentials", lambda: run_refresh(self.ice, self.node.clients), restart=True)
        tasks.start("turn-checks", self.turn.run, restart=True)


def advertised(settings: NodeSettings, port: int, bound: str | None = None) -> str:
    """The URL at which operators' commands reach the ops `port`: another host cannot use a wildcard or a loopback.

    `bound` is the address that the port has, once it is open.
    """
    if settings.ops_advertise is not None:
        given = settings.ops_advertise
        return f"http://{given}" if urlsplit(f"//{given}").port else f"http://{given}:{port}"
    host = bound or settings.ops_host
    if host in WILDCARDS:
        host = _own_address(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address(wildcard: str) -> str:
    """An address of this host that others can reach: of IPv4 where it has one."""
    ipv4_only = wildcard == "0.0.0.0"  # noqa: S104 - compared with, not bound
    for family in (socket.AF_INET,) if ipv4_only else (socket.AF_INET, socket.AF_INET6):
        try:
            return str(socket.getaddrinfo(socket.gethostname(), None, family)[0][4][0])
        except OSError:
            continue
    return "127.0.0.1" if ipv4_only else "::1"


def rules_of(settings: NodeSettings) -> Rules:
    """The rules of rooms that the settings ask for."""
    return Rules(
        no_show_ms=round(settings.no_show_seconds * 1_000),
        grace_ms=round(settings.grace_seconds * 1_000),
        crowd_grace_ms=round(settings.crowd_grace_seconds * 1_000),
        text_idle_ms=round(settings.text_idle_seconds * 1_000),
        text_warning_ms=round(settings.text_warning_seconds * 1_000),
        ending_warning_ms=round(settings.ending_seconds * 1_000),
    )


def secret_of(value: SecretStr | None) -> str | None:
    """The secret in plain text."""
    return None if value is None else value.get_secret_value()


def _clients(settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> Connections:
    return Connections(
        loop,
        limits=SessionLimits(
            settings.limit_bad_frames,
            settings.limit_frames_per_second,
            settings.limit_frames_burst,
            settings.limit_frame_bytes,
            round(PING_SHARE * settings.limit_ping_seconds * 1_000),
        ),
        max_frame=settings.limit_frame_bytes,
        max_outgoing=settings.limit_outgoing_bytes,
        origins=Origins(settings.origins),
        hello_seconds=settings.limit_hello_seconds,
        ping_seconds=settings.limit_ping_seconds,
        pong_seconds=settings.limit_pong_seconds,
        max_head=settings.limit_header_bytes,
        work=_allowances(settings),
    )


def _allowances(settings: NodeSettings) -> Allowances:
    """What is not set follows from the limits of frames and connections, whatever they are."""
    connection = settings.limit_work_ms or settings.limit_frames_per_second / 5
    burst = settings.limit_work_burst_ms or settings.limit_frames_burst / 2
    address = settings.limit_address_work_ms or connection * settings.limit_connections_per_ip / 5
    address_burst = settings.limit_address_work_burst_ms or burst * settings.limit_connections_per_ip / 10
    return Allowances(connection, burst, address, address_burst)


def _verifier(settings: NodeSettings, jwks: Jwks | None) -> Verifier:
    return Verifier(secret_of(settings.auth_secret), jwks, settings.auth_issuer, settings.auth_audience)

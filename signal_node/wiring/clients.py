"""Clients, from the connection on: login and requests."""

from __future__ import annotations

import time

from signal_node.cluster.recovery import Recovery
from signal_node.ice.servers import IceServers
from signal_node.signaling.admission import Admission
from signal_node.signaling.handler import ConnectionHandler
from signal_node.signaling.login import Login
from signal_node.signaling.reports import Reports
from signal_node.signaling.requests import Requests
from signal_node.signaling.rooms_of_users import RoomsOfUsers
from signal_node.signaling.work import Work
from signal_node.transport.connections import Connections
from signal_node.users.ownership import Users
from signal_node.users.tokens import Jwks
from signal_node.wiring.cluster import ClusterParts
from signal_node.wiring.limits import LimitParts
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.settings import verifier_of
from signal_node.wiring.signals import SignalParts
from signal_node.wiring.surroundings import Surroundings


class ClientParts:
    """Login, requests, and the handler of connections."""

    def __init__(
        self,
        around: Surroundings,
        clients: Connections,
        rooms: RoomParts,
        signals: SignalParts,
        cluster: ClusterParts,
        limits: LimitParts,
        users: Users,
        recovery: Recovery,
        ice: IceServers,
        work: Work,
        admission: Admission,
    ) -> None:
        node, settings, loop = around.node, around.settings, around.loop
        lookups, log = rooms.store.lookups, signals.negotiation_log
        self.jwks = None if settings.jwks_url is None else Jwks(settings.jwks_url, time.monotonic)
        self.login = Login(
            node,
            clients,
            rooms.sessions,
            users,
            signals.takeover,
            RoomsOfUsers(
                node, lookups, rooms.commands, log, work, recovery.bring_back_rooms_of, now=loop.time
            ),
            verifier_of(settings, self.jwks),
            ice,
            limits.addresses,
            work,
            admission,
            is_live=cluster.view.is_recently_live,
        )
        reports = Reports(around.client, rooms.store, settings.limit_reports_per_room, around.clock.now)
        self.requests = Requests(
            node,
            rooms.cache,
            lookups,
            rooms.commands,
            signals.inbox.health,
            self.login,
            admission,
            around.archive,
            reports,
            work,
        )
        self.handler = ConnectionHandler(
            clients,
            signals.relay,
            self.requests,
            rooms.commands,
            limits.addresses,
            log,
            around.draining,
            loop,
        )

"""Maps the settings to the parameters of each part."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from pydantic import SecretStr

from keepline.ops import http, program
from keepline.ops.origins import Origins
from keepline.ops.settings import NodeSettings
from keepline.room.rules import Rules
from signal_node.ice.servers import IceServers
from signal_node.limits.rates import Rates
from signal_node.limits.sockets import Sockets
from signal_node.protocol.session import SessionLimits
from signal_node.transport.budget import Allowances
from signal_node.transport.connections import Connections
from signal_node.users.tokens import Jwks, Verifier

RESERVED_DESCRIPTORS = 128
"""File descriptors reserved for the ops port, Redis, Postgres and files, however many clients connect."""

WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound

PING_SHARE = 0.4
"""A node pings after this fraction of the allowed silence. A client that pings as often, and waits as long again for an
answer, notices a dead connection before the node does.
"""


def rules_of(settings: NodeSettings) -> Rules:
    """The rules of rooms."""
    return Rules(
        no_show_ms=round(settings.no_show_seconds * 1_000),
        grace_ms=round(settings.grace_seconds * 1_000),
        crowd_grace_ms=round(settings.crowd_grace_seconds * 1_000),
        text_idle_ms=round(settings.text_idle_seconds * 1_000),
        text_warning_ms=round(settings.text_warning_seconds * 1_000),
        ending_warning_ms=round(settings.ending_seconds * 1_000),
    )


def connections_of(settings: NodeSettings, loop: asyncio.AbstractEventLoop) -> Connections:
    """The clients' connections, with their limits."""
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
        max_strangers=settings.limit_connections_before_hello,
        work=_allowances(settings),
    )


def sockets_of(settings: NodeSettings) -> Sockets:
    """The maximum number of sockets."""
    return Sockets(
        settings.limit_connections or program.descriptors() - RESERVED_DESCRIPTORS,
        settings.limit_connections_per_ip,
        settings.trusted_proxies,
    )


def rates_of(settings: NodeSettings, clients: Connections) -> Rates:
    """The rate of valid logins, and budgets that survive a reconnect."""
    return Rates(
        _allowances(settings),
        clients.new_bucket,
        settings.limit_logins_per_second or settings.limit_connections_per_ip / 4,
        settings.limit_connections_per_ip,
        settings.limit_user_logins_per_second,
    )


def _allowances(settings: NodeSettings) -> Allowances:
    """Limits that are not set are derived from those on frames and connections."""
    connection = settings.limit_work_ms or settings.limit_frames_per_second / 5
    burst = settings.limit_work_burst_ms or settings.limit_frames_burst / 2
    address = settings.limit_address_work_ms or connection * settings.limit_connections_per_ip / 5
    address_burst = (
        settings.limit_address_work_burst_ms or burst * settings.limit_connections_per_ip * 3 / 100
    )
    return Allowances(connection, burst, address, address_burst)


def ice_of(settings: NodeSettings) -> IceServers:
    """The ICE servers for clients."""
    return IceServers(settings.stun_urls, settings.turn_urls, secret_of(settings.turn_secret) or "")


def verifier_of(settings: NodeSettings, jwks: Jwks | None) -> Verifier:
    """The verifier of tokens."""
    return Verifier(secret_of(settings.auth_secret), jwks, settings.auth_issuer, settings.auth_audience)


def secret_of(value: SecretStr | None) -> str | None:
    """The secret in plain text."""
    return None if value is None else value.get_secret_value()


def advertised(settings: NodeSettings, port: int, bound: str | None = None) -> str:
    """The URL at which operators' commands reach the ops `port`: other hosts cannot use a wildcard or loopback address.

    `bound` is the address of the port, once it is open.
    """
    if settings.ops_advertise is not None:
        given = settings.ops_advertise
        return f"http://{given}" if urlsplit(f"//{given}").port else f"http://{given}:{port}"
    host = bound or settings.ops_host
    return http.http_url(_own_address(host) if host in WILDCARDS else host, port)


def _own_address(wildcard: str) -> str:
    """An address of this host that others can reach, of the family that a port on this wildcard listens to."""
    ipv4 = wildcard == "0.0.0.0"  # noqa: S104 - compared with, not bound
    try:
        family = socket.AF_INET if ipv4 else socket.AF_INET6
        return str(socket.getaddrinfo(socket.gethostname(), None, family)[0][4][0])
    except OSError:
        return http.LOOPBACK if ipv4 else http.LOOPBACK_6

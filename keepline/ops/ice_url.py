"""Parses the URL of a TURN server (RFC 7065): `turn:host[:port][?transport=udp|tcp]`, with `turns` for TLS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_URL = re.compile(
    r"(?P<scheme>turns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>\d{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?"
)
_DEFAULT_PORTS = {"turn": 3478, "turns": 5349}


@dataclass(frozen=True, slots=True)
class TurnServer:
    """The address of a TURN server, and its transport: UDP, TCP, or with `tls` DTLS or TLS."""

    host: str
    port: int
    transport: Literal["udp", "tcp"]
    tls: bool


def parse_turn(url: str) -> TurnServer:
    """Parse a URL. The default transport is UDP, and TCP with TLS, as in browsers. Raises ValueError."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"not the URL of a TURN server: {url!r}")
    tls = found["scheme"] == "turns"
    port = int(found["port"] or _DEFAULT_PORTS[found["scheme"]])
    if not 0 < port < 65_536:
        raise ValueError(f"the port must be from 1 to 65535: {url!r}")
    transport: Literal["udp", "tcp"] = (
        "tcp" if found["transport"] == "tcp" or (tls and not found["transport"]) else "udp"
    )
    return TurnServer(found["host"].strip("[]"), port, transport, tls)

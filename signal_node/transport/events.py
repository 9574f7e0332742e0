"""What comes of the bytes of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from signal_node.protocol import close_codes


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake succeeded. `origin` is None outside of browsers; `forwarded_for` is the header of proxies,
    if any.
    """

    origin: str | None
    forwarded_for: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake was answered with an HTTP error, or not at all (status 0) if it was not HTTP."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Violated:
    """The client violated the WebSocket protocol; the close has been queued."""

    close: close_codes.CloseCode


@dataclass(frozen=True, slots=True)
class Misled:
    """A trusted proxy sent a malformed PROXY header, so nothing that follows can be trusted."""

    why: str


Event = str | Opened | Refused | Violated | Misled


class Entrance(Protocol):
    """What only the handshake needs to know about the node and the socket."""

    def draining(self) -> bool:
        """Whether the node refuses new clients."""

    def behind_proxy(self) -> bool:
        """Whether the socket belongs to a trusted proxy, whose PROXY header counts."""

"""What comes of the bytes of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from signal_node.protocol import close_codes


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is through. `origin` is None outside of browsers, `forwarded_for` what proxies wrote, if any."""

    origin: str | None
    forwarded_for: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake was answered with an HTTP error, or with nothing where it was no HTTP: status 0."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Violated:
    """The client broke the framing; the close has been queued."""

    close: close_codes.CloseCode


@dataclass(frozen=True, slots=True)
class Misled:
    """A trusted proxy began with a PROXY header that is none: nothing that follows can be believed."""

    why: str


Event = str | Opened | Refused | Violated | Misled


class Entrance(Protocol):
    """What only the handshake has to know of the node, and of the socket."""

    def draining(self) -> bool:
        """Whether the node takes no clients now."""

    def behind_proxy(self) -> bool:
        """Whether the other end is a trusted proxy, whose PROXY header is believed."""

"""The effects that a session returns, for the node to perform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from msgspec import Struct, UnsetType

from keepline.room.commands import Command
from keepline.room.record import SideNumber
from signal_node.protocol import close_codes, fields

RequestId = fields.RequestId | UnsetType


@dataclass(frozen=True, slots=True)
class Send:
    """Write a frame to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close the connection after everything sent before."""

    close: close_codes.CloseCode


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check the token and take the user. Then call `welcomed` or `refused`."""

    token: str
    resume: str | None
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Let the user join a room. Then call `joined` or `failed`."""

    room_id: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out a command on a room that the session holds. Then call `done` or `failed`."""

    room_id: str
    command: Command
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class LineRequest:
    """Find the chat message with a key in a room that the session does not hold, because the room may have ended since
    the message was sent. Then call `done` or `failed`.
    """

    room_id: str
    key: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Store a report about the other member of a room. Then call `done` or `failed`."""

    room_id: str
    reason: str
    request_id: RequestId


@final
class Relay(Struct, gc=False):
    """Forward to the peer of `side`, immediately. There is one per signal, so it uses the type that is fastest to
    create.
    """

    room_id: str
    side: SideNumber
    data: bytes


Request = Authenticate | JoinRequest | Act | LineRequest | ReportRequest
"""The effects that take time."""

Effect = Send | CloseConnection | Request | Relay

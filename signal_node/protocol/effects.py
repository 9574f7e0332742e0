"""What a session wants done: the node performs it."""

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
    """Close the connection, after what was sent before."""

    close: close_codes.CloseCode


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check the token and take the user; come back with `welcomed` or `refused`."""

    token: str
    resume: str | None
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Let the user into a room; come back with `joined` or `failed`."""

    room_id: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out a command on a room that the session holds; come back with `done` or `failed`."""

    room_id: str
    command: Command
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class LineRequest:
    """Find the line of chat with a key in a room that the session does not hold, because it may have ended since the
    line was sent; come back with `done` or `failed`.
    """

    room_id: str
    key: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Take what the user says about the other member of a room; come back with `done` or `failed`."""

    room_id: str
    reason: str
    request_id: RequestId


@final
class Relay(Struct, gc=False):
    """Forward to the peer of `side`, now. There is one for each signal, so it is of the kind that is made fastest."""

    room_id: str
    side: SideNumber
    data: bytes


Request = Authenticate | JoinRequest | Act | LineRequest | ReportRequest
"""What takes time."""

Effect = Send | CloseConnection | Request | Relay

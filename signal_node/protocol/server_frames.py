"""The frames that the server sends."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from keepline.room.effects import (
    Effect,
    EndingSoon,
    InactivityChanged,
    ModeAsked,
    PeerChanged,
    Posted,
    Replaced,
    RoomEnded,
)
from keepline.room.record import Presence
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.fields import RequestId
from signal_node.protocol.snapshots import ChatLine, HeldRoom, Snapshot, chat_line

_encode = msgspec.json.Encoder().encode


class ServerFrame(Struct, tag_field="type", kw_only=True):
    """The common base of all server frames."""


class Answer(ServerFrame, kw_only=True):
    """A frame that answers a request, and repeats its id."""

    id: RequestId | UnsetType = UNSET


class ClientLimits(Struct):
    """What one connection may send, so that a client can pace itself."""

    frames_per_second: float
    frames_burst: int
    frame_bytes: int
    chat_length: int
    chat_key: int
    ping_ms: int


class Welcome(Answer, tag="welcome", kw_only=True):
    """Answer to hello."""

    user: str
    session: str
    resume: str
    resumed: bool
    node: str
    ice_servers: list[dict[str, Any]]
    rooms: list[HeldRoom]
    limits: ClientLimits | UnsetType = UNSET


class Queued(ServerFrame, tag="queued", kw_only=True):
    """A hello is in the queue, and will be answered."""

    ahead: int
    wait_ms: int


class Joined(Answer, tag="joined", kw_only=True):
    """Answer to join."""

    room: Snapshot
    side: Literal[1, 2]
    polite: bool
    peer: Presence


class Ok(Answer, tag="ok", kw_only=True):
    """Answer to all other requests."""

    message: ChatLine | UnsetType = UNSET


class Error(Answer, tag="error", kw_only=True):
    """A frame was refused."""

    room: str | UnsetType = UNSET
    code: ErrorCode
    message: str
    retry_after_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Pong(Answer, tag="pong", kw_only=True):
    """Answer to ping."""


class Peer(ServerFrame, tag="peer", kw_only=True):
    """The state of the other side changed."""

    room: str
    state: Literal["joined", "reconnecting", "reconnected", "away", "left"]
    grace_ms: int | UnsetType = UNSET


class ChatReceived(ServerFrame, tag="chat", kw_only=True):
    """The peer wrote a message."""

    room: str
    message: ChatLine


class ModeChanged(ServerFrame, tag="mode", kw_only=True):
    """The peer requested, accepted or declined video."""

    room: str
    action: Literal["request", "accept", "decline"]


class Inactivity(ServerFrame, tag="inactivity", kw_only=True):
    """A text room is about to end because of inactivity, or no longer is."""

    room: str
    state: Literal["warning", "cleared"]
    ends_in_ms: int | UnsetType = UNSET


class Ending(ServerFrame, tag="ending", kw_only=True):
    """The agreed length is almost over."""

    room: str
    ends_in_ms: int


class Ended(ServerFrame, tag="ended", kw_only=True):
    """The room has ended."""

    room: str
    reason: str


class Ice(ServerFrame, tag="ice", kw_only=True):
    """Fresh TURN credentials."""

    ice_servers: list[dict[str, Any]]


class Goodbye(ServerFrame, tag="goodbye", kw_only=True):
    """The node is about to stop."""

    reason: str
    reconnect_after_ms: int


SERVER_FRAMES = (
    Welcome,
    Queued,
    Joined,
    Ok,
    Error,
    Pong,
    Peer,
    ChatReceived,
    ModeChanged,
    Inactivity,
    Ending,
    Ended,
    Ice,
    Goodbye,
)


def encode(frame: ServerFrame) -> bytes:
    """Encode a server frame as JSON."""
    return _encode(frame)


def event_frame(room_id: str, effect: Effect) -> ServerFrame | None:
    """The frame that tells a client of an effect; None for an effect without a frame."""
    match effect:
        case PeerChanged(state=state, grace_ms=grace_ms):
            return Peer(room=room_id, state=state, grace_ms=UNSET if grace_ms is None else grace_ms)
        case Posted(message=message):
            return ChatReceived(room=room_id, message=chat_line(message))
        case ModeAsked(action=action):
            return ModeChanged(room=room_id, action=action)
        case InactivityChanged(state=state, ends_in_ms=ends_in_ms):
            return Inactivity(
                room=room_id, state=state, ends_in_ms=UNSET if ends_in_ms is None else ends_in_ms
            )
        case EndingSoon(ends_in_ms=ends_in_ms):
            return Ending(room=room_id, ends_in_ms=ends_in_ms)
        case RoomEnded(reason=reason):
            return Ended(room=room_id, reason=reason.value)
        case Replaced():
            return None

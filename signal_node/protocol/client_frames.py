"""The frames that clients send, decoded strictly.

Unknown fields, wrong types and out-of-range values are refused here, so that no other module examines JSON again. A
test compares `docs/asyncapi.yaml` with these classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from keepline.room.reports import MAX_REASON
from keepline.room.rules import MAX_TEXT
from signal_node.protocol.bad_frames import explain
from signal_node.protocol.fields import ChatKey, Count, RequestId, RoomId, StreamId


class ClientFrame(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """The common fields of all client frames."""

    id: RequestId | UnsetType = UNSET


class Hello(ClientFrame, tag="hello", kw_only=True):
    """The first frame."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)]
    resume: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET


class JoinRoom(ClientFrame, tag="join", kw_only=True):
    """Take the user's side of a room."""

    room: RoomId


@final
class Signal(ClientFrame, tag="signal", kw_only=True):
    """Forwarded to the peer. `data` stays as the bytes that arrived."""

    room: RoomId
    stream: StreamId | UnsetType = UNSET
    n: Count | UnsetType = UNSET
    data: Raw


class Ack(ClientFrame, tag="ack", kw_only=True):
    """Forwarded to the peer: everything in its stream up to `n` has arrived."""

    room: RoomId
    stream: StreamId
    n: Count


class Typing(ClientFrame, tag="typing", kw_only=True):
    """Forwarded to the peer."""

    room: RoomId


class Chat(ClientFrame, tag="chat", kw_only=True):
    """A chat message to store, once for each `key`."""

    room: RoomId
    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    key: ChatKey | UnsetType = UNSET


class Mode(ClientFrame, tag="mode", kw_only=True):
    """Turn a text room into a video room: request, accept or decline."""

    room: RoomId
    action: Literal["request", "accept", "decline"]


class LeaveRoom(ClientFrame, tag="leave", kw_only=True):
    """Leave on purpose."""

    room: RoomId


class EndRoom(ClientFrame, tag="end", kw_only=True):
    """Hang up for both."""

    room: RoomId


class ReportRoom(ClientFrame, tag="report", kw_only=True):
    """Report the other member to the app's moderators."""

    room: RoomId
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]


class Ping(ClientFrame, tag="ping", kw_only=True):
    """Ask whether the connection still works, because a browser cannot see WebSocket pings."""


AnyClientFrame = (
    Hello | JoinRoom | Signal | Ack | Typing | Chat | Mode | LeaveRoom | EndRoom | ReportRoom | Ping
)
_decode: Callable[[str], AnyClientFrame] = msgspec.json.Decoder(AnyClientFrame).decode
_encode = msgspec.json.Encoder().encode
TYPES = frozenset(kind.__struct_config__.tag for kind in AnyClientFrame.__args__)


def decode(text: str) -> AnyClientFrame:
    """Decode the frame of a text message. Raises BadFrame."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise explain(text, str(error), TYPES) from None


def forwarded(frame: Signal | Ack | Typing) -> bytes:
    """The frame for the peer: the same values, without `id`.

    The envelope is rewritten, because parsers may differ on which of two equal JSON keys counts. This way no client can
    make its peer see a forged server frame.
    """
    if frame.id is not UNSET:
        frame.id = UNSET
    return _encode(frame)

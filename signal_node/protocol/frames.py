"""The frames of protocol v1: what may come in, what goes out, and the JSON of both.

Strict inwards: unknown fields, wrong types and values out of bounds are refused here, so that nothing behind
this module looks at JSON again. `docs/asyncapi.yaml` is held against these classes by a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

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
from keepline.room.record import Message, Presence, Room, SideNumber, other
from keepline.room.reports import MAX_REASON
from keepline.room.rules import MAX_TEXT

SUBPROTOCOL = "keepline.v1"

MAX_MESSAGE = 200
"""Characters of what a client is told about a frame: what it sent is not sent back whole."""

_BYTE_ORDER_MARK = "\ufeff"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_BAD_LENGTH = re.compile(r"Expected `str` of length [<>]= \d+ - at `\$\.(text|reason)`")
"""How msgspec speaks of what people write."""

LARGEST_INTEGER = 2**53 - 1
"""The largest that every reader of JSON gets right (RFC 8259, 6)."""

RequestId = (
    Annotated[str, Meta(min_length=1, max_length=64)]
    | Annotated[int, Meta(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
    | float
)
ROOM_ID_LENGTH = 36
RoomId = Annotated[str, Meta(min_length=ROOM_ID_LENGTH, max_length=ROOM_ID_LENGTH)]
MAX_KEY = 64
"""Characters of the key of a line of chat."""

ChatKey = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
StreamId = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=1, le=LARGEST_INTEGER)]


class ErrorCode(StrEnum):
    """What went wrong with one frame."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    NOT_A_MEMBER = "not_a_member"
    ROOM_NOT_FOUND = "room_not_found"
    ROOM_ENDED = "room_ended"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too_large"
    UNKNOWN_TYPE = "unknown_type"


# --- client frames ---------------------------------------------------------------------------------------------


class ClientFrame(Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """What all frames of a client have in common."""

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
    """Forwarded to the peer. `data` stays the bytes that it came as."""

    room: RoomId
    stream: StreamId | UnsetType = UNSET
    n: Count | UnsetType = UNSET
    data: Raw


class Ack(ClientFrame, tag="ack", kw_only=True):
    """Forwarded to the peer: all of its stream up to `n` has arrived."""

    room: RoomId
    stream: StreamId
    n: Count


class Typing(ClientFrame, tag="typing", kw_only=True):
    """Forwarded to the peer."""

    room: RoomId


class Chat(ClientFrame, tag="chat", kw_only=True):
    """A line of chat, to be kept; once for each `key`."""

    room: RoomId
    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    key: ChatKey | UnsetType = UNSET


class Mode(ClientFrame, tag="mode", kw_only=True):
    """Text to video: ask, agree or not."""

    room: RoomId
    action: Literal["request", "accept", "decline"]


class LeaveRoom(ClientFrame, tag="leave", kw_only=True):
    """Step out on purpose."""

    room: RoomId


class EndRoom(ClientFrame, tag="end", kw_only=True):
    """Hang up for both."""

    room: RoomId


class ReportRoom(ClientFrame, tag="report", kw_only=True):
    """Tell the app's moderators about the other member."""

    room: RoomId
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]


class Ping(ClientFrame, tag="ping", kw_only=True):
    """Ask whether the connection still works: a browser cannot see the pings of WebSockets."""


AnyClientFrame = (
    Hello | JoinRoom | Signal | Ack | Typing | Chat | Mode | LeaveRoom | EndRoom | ReportRoom | Ping
)
_decode: Callable[[str], AnyClientFrame] = msgspec.json.Decoder(AnyClientFrame).decode
_encode = msgspec.json.Encoder().encode
_TYPES = frozenset(kind.__struct_config__.tag for kind in AnyClientFrame.__args__)


class BadFrame(Exception):
    """A text that is no frame of the protocol, with what the client is to be told.

    `kind` is its type where it has one. `is_mistake`: a correct client may send it, when its user writes too much or
    pastes half a character; all others come from faulty clients only.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        request_id: RequestId | UnsetType = UNSET,
        room: str | None = None,
        *,
        kind: str | None = None,
        is_mistake: bool = False,
    ) -> None:
        super().__init__(message[:MAX_MESSAGE])
        self.code = code
        self.message = message[:MAX_MESSAGE]
        self.request_id = request_id
        self.room = room
        self.kind = kind
        self.is_mistake = is_mistake


def decode(text: str) -> AnyClientFrame:
    """The frame of a text message. Raises BadFrame."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise _bad_frame(text, str(error)) from None


def id_of(text: str) -> RequestId | UnsetType:
    """The id of a frame that is not looked at any further, where it can be read."""
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return UNSET
    return _request_id(raw) if isinstance(raw, dict) else UNSET


def _bad_frame(text: str, why: str) -> BadFrame:
    """Look again, slowly, for what the client needs to know about a frame that was refused."""
    cut = False
    try:
        raw = msgspec.json.decode(text)
    except RecursionError:
        return BadFrame(ErrorCode.BAD_REQUEST, "nested too deeply")
    except (msgspec.MsgspecError, ValueError) as error:
        if text.startswith(_BYTE_ORDER_MARK):
            return BadFrame(ErrorCode.BAD_REQUEST, "not JSON: it begins with a byte order mark (U+FEFF)")
        if (raw := _with_half_characters(text)) is None:
            return BadFrame(ErrorCode.BAD_REQUEST, f"not JSON: {error}")
        cut, why = True, "a text is cut through a character: half of a surrogate pair is no text"
    if not isinstance(raw, dict):
        return BadFrame(ErrorCode.BAD_REQUEST, "a frame is a JSON object")
    named, kind = (_request_id(raw), _room(raw)), raw.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        return BadFrame(ErrorCode.UNKNOWN_TYPE, f"there is no type {kind[:64]!r}", *named, kind=kind)
    kind = kind if isinstance(kind, str) else None
    mistake = cut or _BAD_LENGTH.fullmatch(why) is not None
    return BadFrame(ErrorCode.BAD_REQUEST, why, *named, kind=kind, is_mistake=mistake)


def _with_half_characters(text: str) -> Any:
    """The value of a text that would be JSON if halves of surrogate pairs were characters; None for all others."""
    if not _HALF_CHARACTER.search(text):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _room(raw: dict[str, Any]) -> str | None:
    room = raw.get("room")
    return room if isinstance(room, str) and len(room) == ROOM_ID_LENGTH else None


def _request_id(raw: dict[str, Any]) -> RequestId | UnsetType:
    try:
        request_id: RequestId = msgspec.convert(raw["id"], RequestId)
        return request_id
    except (KeyError, msgspec.ValidationError):
        return UNSET


def forwarded(frame: Signal | Ack | Typing) -> bytes:
    """The frame as the peer gets it: the same values, without `id`.

    The envelope is written anew, because a reader of JSON takes the last of two equal keys and the peer's may
    be another one than ours: no client can make its peer see a frame of the server's.
    """
    if frame.id is not UNSET:
        frame.id = UNSET
    return _encode(frame)


# --- server frames ---------------------------------------------------------------------------------------------


class ChatLine(Struct):
    """A message as clients see it."""

    seq: int
    sender: str = msgspec.field(name="from")
    text: str
    at: int


class Snapshot(Struct):
    """A room as clients and the HTTP API see it. Times are ms since 1970."""

    room_id: str
    user_1: str
    user_2: str
    chat_mode: Literal["video", "text"]
    status: Literal["active", "grace_period", "ended"]
    started_at: int
    duration_seconds: int
    grace_period_expires: int | None
    user_1_connected: bool
    user_2_connected: bool
    messages: list[ChatLine]
    version: int
    ended_reason: str | None
    ended_at: int | None


class HeldRoom(Struct):
    """A room and the user's place in it."""

    room: Snapshot
    side: Literal[1, 2]
    polite: bool
    peer: Presence


class ServerFrame(Struct, tag_field="type", kw_only=True):
    """What all frames of the server have in common."""


class Answer(ServerFrame, kw_only=True):
    """A frame that answers a request, whose id it repeats."""

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
    """A hello waits for its turn, and will be answered."""

    ahead: int
    wait_ms: int


class Joined(Answer, tag="joined", kw_only=True):
    """Answer to join."""

    room: Snapshot
    side: Literal[1, 2]
    polite: bool
    peer: Presence


class Ok(Answer, tag="ok", kw_only=True):
    """Answer to everything else that is answered."""

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
    """The other side changed."""

    room: str
    state: Literal["joined", "reconnecting", "reconnected", "away", "left"]
    grace_ms: int | UnsetType = UNSET


class ChatReceived(ServerFrame, tag="chat", kw_only=True):
    """The peer wrote."""

    room: str
    message: ChatLine


class ModeChanged(ServerFrame, tag="mode", kw_only=True):
    """The peer asked for video, or answered."""

    room: str
    action: Literal["request", "accept", "decline"]


class Inactivity(ServerFrame, tag="inactivity", kw_only=True):
    """A text room is about to end in silence, or no longer."""

    room: str
    state: Literal["warning", "cleared"]
    ends_in_ms: int | UnsetType = UNSET


class Ending(ServerFrame, tag="ending", kw_only=True):
    """The agreed length is nearly over."""

    room: str
    ends_in_ms: int


class Ended(ServerFrame, tag="ended", kw_only=True):
    """The room is over."""

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
    """The JSON of a server frame."""
    return _encode(frame)


def to_json(value: Any) -> bytes:
    """The JSON of a snapshot or anything made of such."""
    return _encode(value)


def chat_line(message: Message) -> ChatLine:
    """A message as clients see it."""
    return ChatLine(message.seq, message.sender, message.text, message.at)


def snapshot(room: Room, messages: Sequence[Message]) -> Snapshot:
    """A room as clients see it."""
    return Snapshot(
        room_id=room.room_id,
        user_1=room.side_1.user,
        user_2=room.side_2.user,
        chat_mode=room.chat_mode.value,
        status=room.status.value,
        started_at=room.started_at,
        duration_seconds=room.duration_seconds,
        grace_period_expires=room.grace_period_expires,
        user_1_connected=room.side_1.connected,
        user_2_connected=room.side_2.connected,
        messages=[chat_line(message) for message in messages],
        version=room.version,
        ended_reason=None if room.ended_reason is None else room.ended_reason.value,
        ended_at=room.ended_at,
    )


def held_room(room: Room, messages: Sequence[Message], side: SideNumber) -> HeldRoom:
    """A room as the member on that side sees it. Side 2 is polite in perfect negotiation."""
    peer = room.side(other(side)).presence
    return HeldRoom(snapshot(room, messages), side, side == 2, peer)


def event_frame(room_id: str, effect: Effect) -> ServerFrame | None:
    """The frame that tells a client of an effect; None for what is not told in a frame."""
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

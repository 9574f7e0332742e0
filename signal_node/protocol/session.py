"""One client's session: what each of its frames asks for, and what it is told. No I/O here.

`receive` takes a text and returns effects; a node performs them and comes back with what became of those that
take time (`welcomed`, `joined`, …). What the session knows of a room is only which side it holds there: the room
itself is the cache's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import final

from msgspec import UNSET, Struct, UnsetType

from keepline.room.commands import AcceptVideo, Command, DeclineVideo, End, Leave, Post, RequestVideo
from keepline.room.record import EndReason, Message, Room, SideNumber
from keepline.room.rules import MAX_TEXT
from signal_node.protocol import close_codes, frames
from signal_node.protocol.frames import ErrorCode, Signal, decode, forwarded
from signal_node.protocol.token_bucket import Bucket

RequestId = frames.RequestId | UnsetType
_Action = frames.Chat | frames.Mode | frames.LeaveRoom | frames.EndRoom
_InRoom = _Action | frames.Signal | frames.Ack | frames.Typing

HELLO = "hello"

SESSION_ID_BYTES = 16
"""How long the id of a session is, in ASCII."""

MAX_ROOMS = 16
"""Rooms that one connection may hold at a time, and ended ones that it remembers."""

MAX_BACKLOG = 64
MAX_BACKLOG_BYTES = 131_072
"""Frames that may wait for the answer to hello, and how large they may be together."""

STRIKES_SECONDS = 60.0
"""The time within which so many bad frames end a connection: they are forgotten one by one."""


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


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one connection may do."""

    bad_frames: int = 10
    frames_per_second: float = 50.0
    frames_burst: int = 200
    frame_bytes: int = 65_536
    ping_ms: int = 8_000


class Stage(Enum):
    """How far a session has come."""

    NEW = auto()
    AUTHENTICATING = auto()
    READY = auto()
    CLOSED = auto()


_NEW, _AUTHENTICATING, _CLOSED = Stage.NEW, Stage.AUTHENTICATING, Stage.CLOSED
"""Looked up once: a member of an enum takes longer than the comparison with it, which shows in a burst."""


class Session:
    """The state of one connection. `id` is unique in the cluster; it fences what the session may change."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_bucket",
        "_errors",
        "_hello_id",
        "_limits",
        "_refusal",
        "_strikes",
        "id",
        "past",
        "rooms",
        "stage",
        "user",
    )

    def __init__(
        self, session_id: str, limits: SessionLimits, errors: Counter[ErrorCode] | None = None
    ) -> None:
        """Take where the errors that the client is told are counted."""
        self.id = session_id
        self.stage = Stage.NEW
        self.user = ""
        self.rooms: dict[str, SideNumber] = {}
        self.past: dict[str, EndReason | None] = {}
        self._limits = limits
        self._errors = Counter() if errors is None else errors
        self._bucket = Bucket(limits.frames_per_second, limits.frames_burst)
        self._strikes = Bucket(limits.bad_frames / STRIKES_SECONDS, limits.bad_frames - 1)
        self._backlog: list[str] = []
        self._backlog_bytes = 0
        self._hello_id: RequestId = UNSET
        self._refusal: tuple[str, int] | None = None

    def closed(self) -> bool:
        """Whether nothing is to be done for this session any more."""
        return self.stage is Stage.CLOSED

    # --- what comes in ---

    def use(self, bucket: Bucket) -> None:
        """Count frames in the user's bucket from now on, which a new connection does not fill."""
        self._bucket = bucket

    def stalled(self, seconds: float) -> None:
        """The node has read nothing for so long: what comes at once now has come in that time."""
        self._bucket.missed(seconds)

    def receive(self, text: str, now: float) -> Sequence[Effect]:
        """Take a text message at `now` (seconds, monotonic) and say what is to be done."""
        stage = self.stage
        if stage is _CLOSED:
            return ()
        if not self._bucket.take(now):
            return self._too_many(text)
        if stage is _AUTHENTICATING:
            return self._wait_for_welcome(text)
        return self._understand(text)

    def _understand(self, text: str) -> Sequence[Effect]:
        try:
            frame = decode(text)
        except frames.BadFrame as bad:
            return self._bad_hello(bad) if self.stage is Stage.NEW else self._strike(bad)
        if type(frame) is Signal:
            return self._signal(frame)
        if self.stage is Stage.NEW:
            return self._hello(frame)
        match frame:
            case frames.Ack() | frames.Typing():
                return self._relay(frame)
            case frames.Ping():
                return (Send(frames.encode(frames.Pong(id=frame.id))),)
            case frames.JoinRoom():
                return self._join(frame)
            case frames.Hello():
                return self._bad_request("hello was already sent on this connection", frame.id)
            case frames.ReportRoom():
                return self._report(frame)
            case frames.Chat() | frames.Mode() | frames.LeaveRoom() | frames.EndRoom():
                return self._act(frame)

    def _hello(self, frame: frames.AnyClientFrame) -> Sequence[Effect]:
        if not isinstance(frame, frames.Hello):
            return self._unauthorized(frame.id, "the first frame must be hello")
        self.stage = Stage.AUTHENTICATING
        self._hello_id = frame.id
        if self._refusal is not None:
            return self.dismissed()
        resume = None if frame.resume is UNSET else frame.resume
        return (Authenticate(frame.token.strip(), resume, frame.id),)

    def _bad_hello(self, bad: frames.BadFrame) -> Sequence[Effect]:
        """A hello that cannot be read is told what is wrong with it; it would be no better the next time."""
        if bad.kind not in (None, HELLO):
            return self._unauthorized(bad.request_id, "the first frame must be hello")
        error = self.failed(bad.code, bad.message, UNSET, bad.request_id)
        return (*error, *self.close(close_codes.BAD_FRAME))

    def _wait_for_welcome(self, text: str) -> Sequence[Effect]:
        self._backlog_bytes += len(text.encode())
        if len(self._backlog) >= MAX_BACKLOG or self._backlog_bytes > MAX_BACKLOG_BYTES:
            return self.close(close_codes.RATE_LIMITED)
        self._backlog.append(text)
        return ()

    def _side_of(self, frame: _InRoom) -> SideNumber | None:
        """The side that the session holds in a frame's room, whose id may be written in upper case as well."""
        side = self.rooms.get(frame.room)
        if side is None:
            frame.room = frame.room.lower()
            side = self.rooms.get(frame.room)
        return side

    def _signal(self, frame: frames.Signal) -> Sequence[Effect]:
        if self.stage is _NEW:
            return self._unauthorized(frame.id, "the first frame must be hello")
        if (frame.stream is UNSET) is not (frame.n is UNSET):
            return self._bad_request("send stream and n together, or neither", frame.id, frame.room)
        side = self._side_of(frame)
        if side is None:
            return self._not_held(frame.room, frame.id)
        return (Relay(frame.room, side, forwarded(frame)),)

    def _relay(self, frame: frames.Ack | frames.Typing) -> Sequence[Effect]:
        side = self._side_of(frame)
        if side is None:
            return self._not_held(frame.room, frame.id)
        return (Relay(frame.room, side, forwarded(frame)),)

    def _join(self, frame: frames.JoinRoom) -> Sequence[Effect]:
        room_id = frame.room.lower()
        if room_id not in self.rooms and len(self.rooms) >= MAX_ROOMS:
            why = f"one connection holds at most {MAX_ROOMS} rooms: leave one first"
            return self.failed(ErrorCode.BAD_REQUEST, why, room_id, frame.id)
        return (JoinRequest(room_id, frame.id),)

    def _report(self, frame: frames.ReportRoom) -> Sequence[Effect]:
        if "\0" in frame.reason:
            return self.failed(ErrorCode.BAD_REQUEST, "reason may not contain U+0000", frame.room, frame.id)
        return (ReportRequest(frame.room.lower(), frame.reason, frame.id),)

    def _act(self, frame: _Action) -> Sequence[Effect]:
        side = self._side_of(frame)
        if side is None:
            if isinstance(frame, frames.Chat) and frame.key is not UNSET:
                return (LineRequest(frame.room, frame.key, frame.id),)
            return self._not_held(frame.room, frame.id)
        match frame:
            case frames.Chat(text=text, key=key):
                if "\0" in text or (key is not UNSET and "\0" in key):
                    why = "text and key may not contain U+0000"
                    return self.failed(ErrorCode.BAD_REQUEST, why, frame.room, frame.id)
                command: Command = Post(side, text, None if key is UNSET else key)
            case frames.Mode(action="request"):
                command = RequestVideo(side)
            case frames.Mode(action="accept"):
                command = AcceptVideo(side)
            case frames.Mode():
                command = DeclineVideo(side)
            case frames.LeaveRoom():
                command = Leave(side, self.id)
            case frames.EndRoom():
                command = End(EndReason.HANGUP)
        return (Act(frame.room, command, frame.id),)

    # --- what became of it ---

    def welcomed(
        self,
        *,
        request_id: RequestId,
        resume: str,
        resumed: bool,
        node: str,
        ice_servers: list[dict[str, object]],
        rooms: list[frames.HeldRoom],
    ) -> Sequence[Effect]:
        """The token was good and the user is this session's now; then whatever the client sent meanwhile."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        self.stage = Stage.READY
        frame = frames.Welcome(
            id=request_id,
            user=self.user,
            session=self.id,
            resume=resume,
            resumed=resumed,
            node=node,
            ice_servers=ice_servers,
            rooms=rooms,
            limits=frames.ClientLimits(
                frames_per_second=self._limits.frames_per_second,
                frames_burst=self._limits.frames_burst,
                frame_bytes=self._limits.frame_bytes,
                chat_length=MAX_TEXT,
                chat_key=frames.MAX_KEY,
                ping_ms=self._limits.ping_ms,
            ),
        )
        effects: list[Effect] = [Send(frames.encode(frame))]
        backlog, self._backlog, self._backlog_bytes = self._backlog, [], 0
        for text in backlog:
            if self.closed():
                break
            effects.extend(self._understand(text))
        return effects

    def refused(self, request_id: RequestId, message: str) -> Sequence[Effect]:
        """The token was not good."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        return self._unauthorized(request_id, message)

    def limited(self, message: str, retry_after_ms: int) -> Sequence[Effect]:
        """The client's address has had its share: its hello is refused, now or when it comes.

        Not before: a client that is about to write would find a connection that is closed, and not be told why.
        """
        self._refusal = message, retry_after_ms
        return () if self.stage is Stage.NEW else self.dismissed()

    def dismissed(self) -> Sequence[Effect]:
        """Refuse a session that is limited, with or without its hello; nothing for others."""
        if self._refusal is None or self.closed():
            return ()
        message, retry_after_ms = self._refusal
        error = self.failed(ErrorCode.RATE_LIMITED, message, UNSET, self._hello_id, retry_after_ms)
        return (*error, *self.close(close_codes.RATE_LIMITED))

    def postponed(self, request_id: RequestId, message: str, retry_after_ms: int) -> Sequence[Effect]:
        """The token cannot be checked just now: the client may say hello again."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        self.stage = Stage.NEW
        self._backlog.clear()
        self._backlog_bytes = 0
        return self.failed(ErrorCode.UNAVAILABLE, message, UNSET, request_id, retry_after_ms)

    def queued(self, ahead: int, wait_ms: int) -> Sequence[Effect]:
        """The hello waits for its turn."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        return (Send(frames.encode(frames.Queued(ahead=ahead, wait_ms=wait_ms))),)

    def joined(self, room: Room, messages: Sequence[Message], request_id: RequestId) -> Sequence[Effect]:
        """The session's join is committed."""
        side = self.rooms.get(room.room_id)
        if side is None:
            return self.ended(room.room_id, request_id, self.past.get(room.room_id))
        held = frames.held_room(room, messages, side)
        frame = frames.Joined(
            id=request_id, room=held.room, side=held.side, polite=held.polite, peer=held.peer
        )
        return (Send(frames.encode(frame)),)

    def done(self, request_id: RequestId, message: Message | None) -> Sequence[Effect]:
        """A command is committed; `message` is the line of chat that it added."""
        line = UNSET if message is None else frames.chat_line(message)
        return (Send(frames.encode(frames.Ok(id=request_id, message=line))),)

    def failed(
        self,
        code: ErrorCode,
        message: str,
        room_id: str | UnsetType,
        request_id: RequestId,
        retry_after_ms: int | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
    ) -> Sequence[Effect]:
        """A request could not be carried out."""
        self._errors[code] += 1
        frame = frames.Error(
            id=request_id,
            room=room_id,
            code=code,
            message=message,
            retry_after_ms=retry_after_ms,
            reason=reason,
        )
        return (Send(frames.encode(frame)),)

    def ended(self, room_id: str, request_id: RequestId, reason: EndReason | None) -> Sequence[Effect]:
        """A request came too late; one who was away when the room ended learns why."""
        why = UNSET if reason is None else reason.value
        return self.failed(ErrorCode.ROOM_ENDED, "the room has ended", room_id, request_id, reason=why)

    def peer_too_slow(self, room_id: str, retry_after_ms: int) -> Sequence[Effect]:
        """A signal was not passed on: the peer has too much to read already. That is no fault of the client."""
        message = "the peer reads too slowly; a signal was not passed on"
        return self.failed(ErrorCode.RATE_LIMITED, message, room_id, UNSET, retry_after_ms)

    def hold(self, room_id: str, side: SideNumber) -> None:
        """The session has taken a side."""
        self.rooms[room_id] = side

    def release(self, room_id: str, *, ended: bool, reason: EndReason | None = None) -> None:
        """The session no longer holds a side; of an ended room it remembers so, and why."""
        if self.rooms.pop(room_id, None) is not None and ended:
            self.past[room_id] = reason
            if len(self.past) > MAX_ROOMS:
                del self.past[next(iter(self.past))]

    def close(self, close: close_codes.CloseCode) -> Sequence[Effect]:
        """Say no more and hear no more."""
        if self.stage is Stage.CLOSED:
            return ()
        self.stage = Stage.CLOSED
        return (CloseConnection(close),)

    # --- refusals ---

    def _not_held(self, room_id: str, request_id: RequestId) -> Sequence[Effect]:
        if room_id in self.past:
            return self.ended(room_id, request_id, self.past[room_id])
        return self.failed(ErrorCode.NOT_A_MEMBER, "join the room first", room_id, request_id)

    def _unauthorized(self, request_id: RequestId, message: str) -> Sequence[Effect]:
        error = self.failed(ErrorCode.UNAUTHORIZED, message, UNSET, request_id)
        return (*error, *self.close(close_codes.UNAUTHORIZED))

    def _too_many(self, text: str) -> Sequence[Effect]:
        error = self.failed(
            ErrorCode.RATE_LIMITED,
            f"at most {self._limits.frames_per_second:g} frames a second; this one was dropped",
            UNSET,
            frames.id_of(text),
            self._bucket.wait_ms(),
        )
        return error if self._is_borne() else (*error, *self.close(close_codes.RATE_LIMITED))

    def _bad_request(
        self, message: str, request_id: RequestId, room_id: str | UnsetType = UNSET
    ) -> Sequence[Effect]:
        room = None if room_id is UNSET else room_id
        return self._strike(frames.BadFrame(ErrorCode.BAD_REQUEST, message, request_id, room))

    def _strike(self, bad: frames.BadFrame) -> Sequence[Effect]:
        error = self.failed(bad.code, bad.message, bad.room or UNSET, bad.request_id)
        if bad.is_mistake or self._is_borne():
            return error
        return (*error, *self.close(close_codes.BAD_FRAME))

    def _is_borne(self) -> bool:
        """Count a frame that no correct client sends; False when there have been too many of late."""
        return self._strikes.take(self._bucket.at)

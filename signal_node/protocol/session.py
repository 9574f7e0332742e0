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

from msgspec import UNSET

from keepline.room.rules import MAX_TEXT
from signal_node.protocol import bad_frames, client_frames, close_codes, fields, server_frames, snapshots
from signal_node.protocol.answers import Answers
from signal_node.protocol.backlog import Backlog
from signal_node.protocol.bad_frames import BadFrame
from signal_node.protocol.client_frames import Signal, decode
from signal_node.protocol.effects import (
    Authenticate,
    CloseConnection,
    Effect,
    RequestId,
    Send,
)
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.room_actions import RoomAction
from signal_node.protocol.session_rooms import SessionRooms
from signal_node.protocol.token_bucket import Bucket

_Asking = (
    client_frames.Ack
    | client_frames.Typing
    | client_frames.Ping
    | client_frames.JoinRoom
    | client_frames.Hello
    | client_frames.ReportRoom
    | RoomAction
)

HELLO = "hello"

SESSION_ID_BYTES = 16
"""How long the id of a session is, in ASCII."""

STRIKES_SECONDS = 60.0
"""The time within which so many bad frames end a connection: they are forgotten one by one."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one connection may do."""

    bad_frames: int = 10
    frames_per_second: float = 50.0
    frames_burst: int = 200
    frame_bytes: int = 65_536
    ping_ms: int = 8_000

    def told(self) -> server_frames.ClientLimits:
        """As clients are told of them, so that they can pace themselves."""
        return server_frames.ClientLimits(
            frames_per_second=self.frames_per_second,
            frames_burst=self.frames_burst,
            frame_bytes=self.frame_bytes,
            chat_length=MAX_TEXT,
            chat_key=fields.MAX_KEY,
            ping_ms=self.ping_ms,
        )


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
        "_bucket",
        "_hello_id",
        "_limits",
        "_refusal",
        "_strikes",
        "answers",
        "id",
        "rooms",
        "stage",
        "user",
    )

    def __init__(self, session_id: str, limits: SessionLimits, answers: Answers | None = None) -> None:
        """Take what makes the answers, which sessions may share."""
        self.id = session_id
        self.answers = answers or Answers(Counter())
        self.stage = Stage.NEW
        self.user = ""
        self.rooms = SessionRooms(session_id, self.answers)
        self._limits = limits
        self._bucket = Bucket(limits.frames_per_second, limits.frames_burst)
        self._strikes = Bucket(limits.bad_frames / STRIKES_SECONDS, limits.bad_frames - 1)
        self._backlog = Backlog()
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
            if self.stage is _NEW:
                return self._hello(frame)
            return self.rooms.signal(frame) if type(frame) is Signal else self._ask(frame)
        except BadFrame as bad:
            return self._bad_hello(bad) if self.stage is _NEW else self._strike(bad)

    def _ask(self, frame: _Asking) -> Sequence[Effect]:
        match frame:
            case client_frames.Ack() | client_frames.Typing():
                return self.rooms.forward(frame)
            case client_frames.Ping():
                return (Send(server_frames.encode(server_frames.Pong(id=frame.id))),)
            case client_frames.JoinRoom():
                return self.rooms.join(frame)
            case client_frames.Hello():
                why = "hello was already sent on this connection"
                raise BadFrame(ErrorCode.BAD_REQUEST, why, frame.id)
            case client_frames.ReportRoom():
                return self.rooms.report(frame)
            case _:
                return self.rooms.act(frame)

    def _hello(self, frame: client_frames.AnyClientFrame) -> Sequence[Effect]:
        if not isinstance(frame, client_frames.Hello):
            return self._unauthorized(frame.id, "the first frame must be hello")
        self.stage = Stage.AUTHENTICATING
        self._hello_id = frame.id
        if self._refusal is not None:
            return self.dismissed()
        resume = None if frame.resume is UNSET else frame.resume
        return (Authenticate(frame.token.strip(), resume, frame.id),)

    def _bad_hello(self, bad: BadFrame) -> Sequence[Effect]:
        """A hello that cannot be read is told what is wrong with it; it would be no better the next time."""
        if bad.kind not in (None, HELLO):
            return self._unauthorized(bad.request_id, "the first frame must be hello")
        error = self.answers.failed(bad.code, bad.message, UNSET, bad.request_id)
        return (*error, *self.close(close_codes.BAD_FRAME))

    def _wait_for_welcome(self, text: str) -> Sequence[Effect]:
        return () if self._backlog.add(text) else self.close(close_codes.RATE_LIMITED)

    # --- what became of it ---

    def welcomed(
        self,
        *,
        request_id: RequestId,
        resume: str,
        resumed: bool,
        node: str,
        ice_servers: list[dict[str, object]],
        rooms: list[snapshots.HeldRoom],
    ) -> Sequence[Effect]:
        """The token was good and the user is this session's now; then whatever the client sent meanwhile."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        self.stage = Stage.READY
        frame = server_frames.Welcome(
            id=request_id,
            user=self.user,
            session=self.id,
            resume=resume,
            resumed=resumed,
            node=node,
            ice_servers=ice_servers,
            rooms=rooms,
            limits=self._limits.told(),
        )
        effects: list[Effect] = [Send(server_frames.encode(frame))]
        for text in self._backlog.take():
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
        error = self.answers.failed(ErrorCode.RATE_LIMITED, message, UNSET, self._hello_id, retry_after_ms)
        return (*error, *self.close(close_codes.RATE_LIMITED))

    def postponed(self, request_id: RequestId, message: str, retry_after_ms: int) -> Sequence[Effect]:
        """The token cannot be checked just now: the client may say hello again."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        self.stage = Stage.NEW
        self._backlog.take()
        return self.answers.failed(ErrorCode.UNAVAILABLE, message, UNSET, request_id, retry_after_ms)

    def queued(self, ahead: int, wait_ms: int) -> Sequence[Effect]:
        """The hello waits for its turn."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        return (Send(server_frames.encode(server_frames.Queued(ahead=ahead, wait_ms=wait_ms))),)

    def close(self, close: close_codes.CloseCode) -> Sequence[Effect]:
        """Say no more and hear no more."""
        if self.stage is Stage.CLOSED:
            return ()
        self.stage = Stage.CLOSED
        return (CloseConnection(close),)

    # --- refusals ---

    def _unauthorized(self, request_id: RequestId, message: str) -> Sequence[Effect]:
        error = self.answers.failed(ErrorCode.UNAUTHORIZED, message, UNSET, request_id)
        return (*error, *self.close(close_codes.UNAUTHORIZED))

    def _too_many(self, text: str) -> Sequence[Effect]:
        error = self.answers.failed(
            ErrorCode.RATE_LIMITED,
            f"at most {self._limits.frames_per_second:g} frames a second; this one was dropped",
            UNSET,
            bad_frames.id_of(text),
            self._bucket.wait_ms(),
        )
        return error if self._is_borne() else (*error, *self.close(close_codes.RATE_LIMITED))

    def _strike(self, bad: BadFrame) -> Sequence[Effect]:
        error = self.answers.failed(bad.code, bad.message, bad.room or UNSET, bad.request_id)
        if bad.is_mistake or self._is_borne():
            return error
        return (*error, *self.close(close_codes.BAD_FRAME))

    def _is_borne(self) -> bool:
        """Count a frame that no correct client sends; False when there have been too many of late."""
        return self._strikes.take(self._bucket.at)

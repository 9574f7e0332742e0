"""The session of one client: what each of its frames asks for, and what the client is told. No I/O.

`receive` takes a text and returns effects. A node performs them, and reports the results of those that take time
(`welcomed`, `joined`, …). The session knows only which side it holds in a room; the cache has the room itself.
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
"""Length of a session id, in ASCII characters."""

STRIKES_SECONDS = 60.0
"""The period within which a number of bad frames end a connection. They are forgotten one by one."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of one connection."""

    bad_frames: int = 10
    frames_per_second: float = 50.0
    frames_burst: int = 200
    frame_bytes: int = 65_536
    ping_ms: int = 8_000

    def told(self) -> server_frames.ClientLimits:
        """The limits in the form for clients, so that they can pace themselves."""
        return server_frames.ClientLimits(
            frames_per_second=self.frames_per_second,
            frames_burst=self.frames_burst,
            frame_bytes=self.frame_bytes,
            chat_length=MAX_TEXT,
            chat_key=fields.MAX_KEY,
            ping_ms=self.ping_ms,
        )


class Stage(Enum):
    """The stages of a session."""

    NEW = auto()
    AUTHENTICATING = auto()
    READY = auto()
    CLOSED = auto()


_NEW, _AUTHENTICATING, _CLOSED = Stage.NEW, Stage.AUTHENTICATING, Stage.CLOSED
"""Looked up once: comparing with an enum member needs an attribute lookup, which shows in a burst."""


class Session:
    """The state of one connection. `id` is unique in the cluster, and fences the session's changes of rooms."""

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
        """`answers` creates the answers, and may be shared by sessions."""
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
        """Whether the session has ended, so that nothing more is to be done for it."""
        return self.stage is Stage.CLOSED

    # --- what comes in ---

    def use(self, bucket: Bucket) -> None:
        """From now on count frames in the user's bucket, which a new connection does not refill."""
        self._bucket = bucket

    def stalled(self, seconds: float) -> None:
        """The node has read nothing for that many seconds, so the frames read now arrived over that time."""
        self._bucket.missed(seconds)

    def receive(self, text: str, now: float) -> Sequence[Effect]:
        """Process a text message at `now` (seconds, monotonic), and return its effects."""
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
        """A malformed hello is told what is wrong with it, because a retry would fail the same way."""
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
        """The token was valid, and this session now holds the user. Also processes what the client has sent
        meanwhile.
        """
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
        """The token was not valid."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        return self._unauthorized(request_id, message)

    def limited(self, message: str, retry_after_ms: int) -> Sequence[Effect]:
        """The client's address has reached a limit: refuse its hello, now or when it arrives.

        Not before the hello: a client that is about to write would find a closed connection, and not learn why.
        """
        self._refusal = message, retry_after_ms
        return () if self.stage is Stage.NEW else self.dismissed()

    def dismissed(self) -> Sequence[Effect]:
        """Refuse a limited session, with or without its hello. No effect on other sessions."""
        if self._refusal is None or self.closed():
            return ()
        message, retry_after_ms = self._refusal
        error = self.answers.failed(ErrorCode.RATE_LIMITED, message, UNSET, self._hello_id, retry_after_ms)
        return (*error, *self.close(close_codes.RATE_LIMITED))

    def postponed(self, request_id: RequestId, message: str, retry_after_ms: int) -> Sequence[Effect]:
        """The token cannot be checked at the moment: the client may send hello again."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        self.stage = Stage.NEW
        self._backlog.take()
        return self.answers.failed(ErrorCode.UNAVAILABLE, message, UNSET, request_id, retry_after_ms)

    def queued(self, ahead: int, wait_ms: int) -> Sequence[Effect]:
        """The hello is in the queue."""
        if self.stage is not Stage.AUTHENTICATING:
            return ()
        return (Send(server_frames.encode(server_frames.Queued(ahead=ahead, wait_ms=wait_ms))),)

    def close(self, close: close_codes.CloseCode) -> Sequence[Effect]:
        """Send nothing more and process nothing more."""
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
        """Count a frame that no correct client sends; False if there have been too many."""
        return self._strikes.take(self._bucket.at)

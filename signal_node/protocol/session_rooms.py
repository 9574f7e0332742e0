"""The rooms of a session: the sides it holds, and what its frames ask for in them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from keepline.room.record import EndReason, Message, Room, SideNumber
from signal_node.protocol import server_frames, snapshots
from signal_node.protocol.answers import Answers
from signal_node.protocol.bad_frames import BadFrame
from signal_node.protocol.client_frames import Ack, Chat, JoinRoom, ReportRoom, Signal, Typing, forwarded
from signal_node.protocol.effects import (
    Act,
    Effect,
    JoinRequest,
    LineRequest,
    Relay,
    ReportRequest,
    RequestId,
    Send,
)
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.room_actions import InRoom, RoomAction, command_of, has_null

MAX_ROOMS = 16
"""Maximum number of rooms that one connection may hold, and of ended ones that it remembers."""


class SessionRooms:
    """The sides that a session holds, by room. The cache has the rooms themselves."""

    __slots__ = ("_answers", "_session", "held", "past")

    def __init__(self, session: str, answers: Answers) -> None:
        self.held: dict[str, SideNumber] = {}
        self.past: dict[str, EndReason | None] = {}
        self._session = session
        self._answers = answers

    def hold(self, room_id: str, side: SideNumber) -> None:
        """The session has taken a side."""
        self.held[room_id] = side

    def release(self, room_id: str, *, ended: bool, reason: EndReason | None = None) -> None:
        """The session no longer holds a side. For an ended room, remembers the reason."""
        if self.held.pop(room_id, None) is not None and ended:
            self.past[room_id] = reason
            if len(self.past) > MAX_ROOMS:
                del self.past[next(iter(self.past))]

    def signal(self, frame: Signal) -> Sequence[Effect]:
        """Forward to the peer. Raises BadFrame."""
        if (frame.stream is UNSET) is not (frame.n is UNSET):
            why = "send stream and n together, or neither"
            raise BadFrame(ErrorCode.BAD_REQUEST, why, frame.id, frame.room)
        side = self.held.get(frame.room)
        if side is None:
            return self.forward(frame)
        return (Relay(frame.room, side, forwarded(frame)),)

    def forward(self, frame: Signal | Ack | Typing) -> Sequence[Effect]:
        """Forward to the peer."""
        side = self._side_of(frame)
        if side is None:
            return self._not_held(frame.room, frame.id)
        return (Relay(frame.room, side, forwarded(frame)),)

    def join(self, frame: JoinRoom) -> Sequence[Effect]:
        """Take the user's side of a room."""
        room_id = frame.room.lower()
        if room_id not in self.held and len(self.held) >= MAX_ROOMS:
            why = f"one connection holds at most {MAX_ROOMS} rooms; leave one first"
            return self._answers.failed(ErrorCode.BAD_REQUEST, why, room_id, frame.id)
        return (JoinRequest(room_id, frame.id),)

    def joined(self, room: Room, messages: Sequence[Message], request_id: RequestId) -> Sequence[Effect]:
        """The session's join is committed."""
        side = self.held.get(room.room_id)
        if side is None:
            return self._answers.ended(room.room_id, request_id, self.past.get(room.room_id))
        held = snapshots.held_room(room, messages, side)
        frame = server_frames.Joined(
            id=request_id, room=held.room, side=held.side, polite=held.polite, peer=held.peer
        )
        return (Send(server_frames.encode(frame)),)

    def report(self, frame: ReportRoom) -> Sequence[Effect]:
        """Report the other member of any room."""
        if "\0" in frame.reason:
            why = "reason may not contain U+0000"
            return self._answers.failed(ErrorCode.BAD_REQUEST, why, frame.room, frame.id)
        return (ReportRequest(frame.room.lower(), frame.reason, frame.id),)

    def act(self, frame: RoomAction) -> Sequence[Effect]:
        """Change a room that the session holds."""
        side = self._side_of(frame)
        if side is None:
            if isinstance(frame, Chat) and frame.key is not UNSET:
                return (LineRequest(frame.room, frame.key, frame.id),)
            return self._not_held(frame.room, frame.id)
        if has_null(frame):
            why = "text and key may not contain U+0000"
            return self._answers.failed(ErrorCode.BAD_REQUEST, why, frame.room, frame.id)
        return (Act(frame.room, command_of(frame, side, self._session), frame.id),)

    def _side_of(self, frame: InRoom) -> SideNumber | None:
        """The side that the session holds in a frame's room, whose id may be in upper case."""
        side = self.held.get(frame.room)
        if side is None:
            frame.room = frame.room.lower()
            side = self.held.get(frame.room)
        return side

    def _not_held(self, room_id: str, request_id: RequestId) -> Sequence[Effect]:
        if room_id in self.past:
            return self._answers.ended(room_id, request_id, self.past[room_id])
        return self._answers.failed(ErrorCode.NOT_A_MEMBER, "join the room first", room_id, request_id)

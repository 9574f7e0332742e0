"""Maps frames that change a room to commands."""

from __future__ import annotations

from msgspec import UNSET

from keepline.room.commands import AcceptVideo, Command, DeclineVideo, End, Leave, Post, RequestVideo
from keepline.room.record import EndReason, SideNumber
from signal_node.protocol.client_frames import Ack, Chat, EndRoom, LeaveRoom, Mode, Signal, Typing

RoomAction = Chat | Mode | LeaveRoom | EndRoom
InRoom = RoomAction | Signal | Ack | Typing


def command_of(frame: RoomAction, side: SideNumber, session: str) -> Command:
    """The command for a frame from the session that holds a side."""
    match frame:
        case Chat(text=text, key=key):
            return Post(side, text, None if key is UNSET else key)
        case Mode(action="request"):
            return RequestVideo(side)
        case Mode(action="accept"):
            return AcceptVideo(side)
        case Mode():
            return DeclineVideo(side)
        case LeaveRoom():
            return Leave(side, session)
        case EndRoom():
            return End(EndReason.HANGUP)


def has_null(frame: RoomAction) -> bool:
    """Whether a text in the frame contains the one character that Postgres cannot store."""
    if not isinstance(frame, Chat):
        return False
    return "\0" in frame.text or (frame.key is not UNSET and "\0" in frame.key)

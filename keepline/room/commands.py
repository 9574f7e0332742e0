"""The commands of a room. A command has all the data that its transition needs, except the time.

`kind` is the name of a command in events and traces. Later releases read it there, so it never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keepline.room.record import ChatMode, EndReason, SideNumber


@dataclass(frozen=True, slots=True)
class Open:
    """Create the room. `duration_seconds` 0 means no limit."""

    kind: ClassVar[str] = "open"
    room_id: str
    user_1: str
    user_2: str
    chat_mode: ChatMode
    duration_seconds: int


@dataclass(frozen=True, slots=True)
class Join:
    """A session takes a side, which is free or held by another session.

    With `only_if_free`, the join has no effect if another session holds the side. It is for a session that was marked
    as lost by mistake.
    """

    kind: ClassVar[str] = "join"
    side: SideNumber
    node: str
    session: str
    only_if_free: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """The session that holds a side leaves on purpose."""

    kind: ClassVar[str] = "leave"
    side: SideNumber
    session: str


@dataclass(frozen=True, slots=True)
class Lose:
    """The session that holds a side is gone: its connection was lost, or its node died (`with_node`).

    `grace_ms` overrides the grace period of the rules for a side of a video room.
    """

    kind: ClassVar[str] = "lose"
    side: SideNumber
    session: str
    grace_ms: int | None = None
    with_node: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """A side writes a chat message. With a `key` that the room already knows, it refers to the message with
    that key.
    """

    kind: ClassVar[str] = "post"
    side: SideNumber
    text: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RequestVideo:
    """A side of a text room requests video. Both sides must be connected."""

    kind: ClassVar[str] = "requestvideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class AcceptVideo:
    """The other side accepts video."""

    kind: ClassVar[str] = "acceptvideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class DeclineVideo:
    """The other side declines video."""

    kind: ClassVar[str] = "declinevideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class End:
    """End the room, in any state."""

    kind: ClassVar[str] = "end"
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Revive:
    """Restore a room from Postgres after the data in Redis and in all nodes was lost. No session is connected to it."""

    kind: ClassVar[str] = "revive"
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Carry out all deadlines that are due by now. `crowded`: the cluster is still letting in a crowd of clients."""

    crowded: bool = False

    kind: ClassVar[str] = "tick"


Command = Open | Join | Leave | Lose | Post | RequestVideo | AcceptVideo | DeclineVideo | End | Revive | Tick

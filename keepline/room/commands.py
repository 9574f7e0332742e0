"""What can be asked of a room. A command carries all that the decision needs, except the time.

`kind` is what a command is called in events and traces, where later releases read it: it never changes.
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
    """A session takes a side, from nobody or from the session that held it.

    With `only_if_free` not from another session: for one that lost the side by mistake.
    """

    kind: ClassVar[str] = "join"
    side: SideNumber
    node: str
    session: str
    only_if_free: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """The session that holds a side steps out on purpose."""

    kind: ClassVar[str] = "leave"
    side: SideNumber
    session: str


@dataclass(frozen=True, slots=True)
class Lose:
    """The session that holds a side is gone: its connection was lost, or its node died (`with_node`).

    `grace_ms` is how long a side of a video room has to come back where it is not what the rules say.
    """

    kind: ClassVar[str] = "lose"
    side: SideNumber
    session: str
    grace_ms: int | None = None
    with_node: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """A side writes a line of chat; with a `key` that the room knows, it means the line that has it."""

    kind: ClassVar[str] = "post"
    side: SideNumber
    text: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RequestVideo:
    """A side of a text room asks for video. Both have to be there."""

    kind: ClassVar[str] = "requestvideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class AcceptVideo:
    """The other side agrees."""

    kind: ClassVar[str] = "acceptvideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class DeclineVideo:
    """The other side does not."""

    kind: ClassVar[str] = "declinevideo"
    side: SideNumber


@dataclass(frozen=True, slots=True)
class End:
    """The room is over, whatever it was doing."""

    kind: ClassVar[str] = "end"
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Revive:
    """The room comes back from Postgres after all that was in memory is gone: nobody is connected to it."""

    kind: ClassVar[str] = "revive"
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: do all that is due by now. `crowded`: the cluster is still taking in a crowd."""

    crowded: bool = False

    kind: ClassVar[str] = "tick"


Command = Open | Join | Leave | Lose | Post | RequestVideo | AcceptVideo | DeclineVideo | End | Revive | Tick

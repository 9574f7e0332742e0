"""The record of a room, of which memory, Redis and Postgres have copies.

A record is immutable; `state.apply` makes the next one. `version` orders all copies. Derived fields (status, the
connected flags, the end of the grace period) are computed and never stored, so a record cannot contradict itself.

Records are structs because a node may hold and read many. Frozen data classes take several times as long to create. The
garbage collector can skip records, because plain values cannot form cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

SideNumber = Literal[1, 2]
SIDES: tuple[SideNumber, ...] = (1, 2)

NO_EXTRA: Mapping[str, object] = MappingProxyType({})

_MOST = 2**63 - 1
Name = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0, le=_MOST)]
NumberFrom1 = Annotated[int, Meta(ge=1, le=_MOST)]

ChatKey = tuple[Name, NumberFrom1]
"""The key of a chat message, and the number of the message."""

ADDED = Meta(extra={"added": True})
"""Marks a field that was added after the first release. Records without it are read with its default."""


class ChatMode(StrEnum):
    """What the two members do in the room: video or text."""

    VIDEO = "video"
    TEXT = "text"


class Status(StrEnum):
    """The lifecycle of a room."""

    ACTIVE = "active"
    GRACE = "grace_period"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a room ended."""

    HANGUP = "hangup"
    GRACE_EXPIRED = "grace_expired"
    INACTIVITY = "inactivity"
    DURATION = "duration"
    NO_SHOW = "no_show"
    DELETED = "deleted"


class Presence(StrEnum):
    """The state of a side, as the other side sees it."""

    ABSENT = "absent"  # has never joined
    JOINED = "joined"
    RECONNECTING = "reconnecting"  # lost its connection; its grace period is running
    AWAY = "away"  # lost its connection in a text room, which has no grace period
    LEFT = "left"  # left on purpose


class Side(Struct, frozen=True, gc=False):
    """One of the two places in a room, and the session that holds it.

    All times are ms since 1970. `session` is the fence of this side: commands from other sessions have no effect on it.
    `came` distinguishes a side that was lost from one that nobody has held yet. `lost_with_node` distinguishes a side
    whose node died from one that lost its own connection. `chat_keys` are the keys of its last messages (see
    `chat_keys`).
    """

    user: Name
    node: Name | None = None
    session: Name | None = None
    came: bool = False
    left: bool = False
    absent_since: Count | None = None
    grace_until: Count | None = None
    idle_from: Count | None = None
    last_message_at: Count | None = None
    lost_with_node: Annotated[bool, ADDED] = False
    chat_keys: Annotated[tuple[ChatKey, ...], ADDED] = ()
    extra: Mapping[str, object] = NO_EXTRA

    @property
    def connected(self) -> bool:
        """Whether a live session holds this side."""
        return self.session is not None

    @property
    def presence(self) -> Presence:
        """The state of this side, as the other side sees it."""
        if self.session is not None:
            return Presence.JOINED
        if not self.came:
            return Presence.ABSENT
        if self.left:
            return Presence.LEFT
        return Presence.AWAY if self.grace_until is None else Presence.RECONNECTING


class Message(Struct, frozen=True, gc=False, omit_defaults=True):
    """One chat message. `seq` counts 1, 2, 3 … within the room. `at` is ms since 1970.

    `key` is the client's optional name for the message, by which a repeated request is recognised.
    """

    seq: NumberFrom1
    sender: Name = field(name="from")
    text: str
    at: Count
    key: Name | None = None


class Room(Struct, frozen=True, gc=False):
    """A call between exactly two users. Times are ms since 1970 unless the name says otherwise.

    `write_id` is unique to the change that made this version, and `earlier_writes` are the last ones of other
    processes. They identify a commit whose answer was lost (see `writes`). `waiting_from` is when both sides could
    first have joined. `extra` holds fields that a newer release wrote.

    These fields and their types also define the format of the record in Redis; `codec` takes them from here.
    """

    room_id: Name
    side_1: Side
    side_2: Side
    chat_mode: ChatMode
    duration_seconds: Count
    opened_at: Count
    updated_at: Count
    waiting_from: Count
    version: NumberFrom1 = 1
    write_id: str = ""
    met_at: Count | None = None
    timed_from: Count | None = None
    ending_warned: bool = False
    last_seq: Count = 0
    mode_requested_by: SideNumber | None = None
    warning_started_at: Count | None = None
    ended_at: Count | None = None
    ended_reason: EndReason | None = None
    earlier_writes: Annotated[tuple[Name, ...], ADDED] = ()
    extra: Mapping[str, object] = NO_EXTRA

    @property
    def status(self) -> Status:
        """Derived from the sides and the end, so it cannot contradict them."""
        if self.ended_at is not None:
            return Status.ENDED
        if self.side_1.grace_until is not None or self.side_2.grace_until is not None:
            return Status.GRACE
        return Status.ACTIVE

    @property
    def started_at(self) -> int:
        """When both sides were present for the first time; before that, when the room was opened."""
        return self.opened_at if self.met_at is None else self.met_at

    @property
    def grace_period_expires(self) -> int | None:
        """The earlier end of the absent sides' grace periods; None if none is running."""
        running = [side.grace_until for side in self.sides if side.grace_until is not None]
        return min(running) if running and self.ended_at is None else None

    @property
    def sides(self) -> tuple[Side, Side]:
        """Side 1 (the initiator) and side 2."""
        return self.side_1, self.side_2

    def side(self, number: SideNumber) -> Side:
        """The side with that number."""
        return self.side_1 if number == 1 else self.side_2

    def side_of(self, user: str) -> SideNumber | None:
        """The side of which the user is a member; None for any other user."""
        if user == self.side_1.user:
            return 1
        return 2 if user == self.side_2.user else None


def other(number: SideNumber) -> SideNumber:
    """The number of the opposite side."""
    return 2 if number == 1 else 1

"""The effects of a transition: whom to notify of what. The room decides; a node performs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keepline.room.record import EndReason, Message, SideNumber

PeerState = Literal["joined", "reconnecting", "reconnected", "away", "left"]


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """Tell side `to` that the other side changed. `grace_ms`: how long that side has to return."""

    to: SideNumber
    state: PeerState
    grace_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """Tell side `to` the message that the other side wrote. Its `seq` is certain once it is committed."""

    to: SideNumber
    message: Message


@dataclass(frozen=True, slots=True)
class ModeAsked:
    """Tell side `to` that the other side requested, accepted or declined video."""

    to: SideNumber
    action: Literal["request", "accept", "decline"]


@dataclass(frozen=True, slots=True)
class InactivityChanged:
    """Tell both sides that a text room ends in `ends_in_ms` unless one of them writes, or that this warning is
    cleared.
    """

    state: Literal["warning", "cleared"]
    ends_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EndingSoon:
    """Tell both sides that the agreed length of the call is almost over."""

    ends_in_ms: int


@dataclass(frozen=True, slots=True)
class RoomEnded:
    """Tell both sides that the room has ended."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Replaced:
    """A session lost its side to a newer session of the same user."""

    node: str
    session: str


Effect = PeerChanged | Posted | ModeAsked | InactivityChanged | EndingSoon | RoomEnded | Replaced

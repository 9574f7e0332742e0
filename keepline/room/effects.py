"""What a transition wants told, and to whom. The room decides; a node performs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keepline.room.record import EndReason, Message, SideNumber

PeerState = Literal["joined", "reconnecting", "reconnected", "away", "left"]


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """Tell side `to` that the other one changed. `grace_ms`: how long it has to come back."""

    to: SideNumber
    state: PeerState
    grace_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """Tell side `to` the message that the other one wrote. Its `seq` is certain once it is committed."""

    to: SideNumber
    message: Message


@dataclass(frozen=True, slots=True)
class ModeAsked:
    """Tell side `to` what the other one did about video."""

    to: SideNumber
    action: Literal["request", "accept", "decline"]


@dataclass(frozen=True, slots=True)
class InactivityChanged:
    """Tell both that a text room ends in `ends_in_ms` unless somebody writes, or that this is off."""

    state: Literal["warning", "cleared"]
    ends_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EndingSoon:
    """Tell both that the agreed length of the call is nearly over."""

    ends_in_ms: int


@dataclass(frozen=True, slots=True)
class RoomEnded:
    """Tell both that the room is over."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Replaced:
    """A session lost its side to a newer one of the same user."""

    node: str
    session: str


Effect = PeerChanged | Posted | ModeAsked | InactivityChanged | EndingSoon | RoomEnded | Replaced

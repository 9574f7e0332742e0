"""What happens in a call, as typed values. Durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keepline.client.models import IceServer, Message


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """The other side came or went.

    `state` is `joined`, `reconnecting`, `reconnected`, `away` or `left`; `grace_seconds` says how long it has
    to come back before the call ends, where there is such a limit.
    """

    state: str
    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The peer sent a signal. `data` is any JSON: ignore what you do not know."""

    data: Any


@dataclass(frozen=True, slots=True)
class ChatReceived:
    """The peer wrote, now or while this client was away."""

    message: Message


@dataclass(frozen=True, slots=True)
class Typing:
    """The peer is writing."""


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """The peer asked for video, accepted or declined it: `action` is `request`, `accept` or `decline`."""

    action: str


@dataclass(frozen=True, slots=True)
class Inactivity:
    """A text call is about to end for silence (`state` is `warning`), or is no more (`cleared`)."""

    state: str
    ends_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The agreed length of the call is nearly over."""

    ends_in_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over; no event follows.

    `reason` is one of the protocol's reasons. Where the end happened while this client was away and the cluster
    does not know the reason any more, it is the error code with which it refused the rejoin: `room_ended`,
    `room_not_found` or `not_a_member`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Rejoined:
    """This client was away and is back in the call; signals of the peer may have been lost meanwhile.

    `resumed` tells whether the session went on (True) or the room was joined anew.
    """

    resumed: bool


@dataclass(frozen=True, slots=True)
class IceServersChanged:
    """New TURN credentials, to be used from the next ICE restart on."""

    ice_servers: tuple[IceServer, ...]


@dataclass(frozen=True, slots=True)
class SignalRefused:
    """The cluster refused a signal or a typing note. `retry_after_seconds`: when it would take one."""

    code: str
    message: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The application read too slowly: `count` events were dropped at this point."""

    count: int


Event = (
    PeerChanged
    | SignalReceived
    | ChatReceived
    | Typing
    | ModeChanged
    | Inactivity
    | Ending
    | Ended
    | Rejoined
    | IceServersChanged
    | SignalRefused
    | EventsLost
)

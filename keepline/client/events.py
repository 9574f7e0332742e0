"""The events of a call, as typed values. Durations are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keepline.client.models import IceServer, Message


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """The presence of the other side changed.

    `state` is `joined`, `reconnecting`, `reconnected`, `away` or `left`. `grace_seconds` is how long it has to return
    before the call ends, if there is such a limit.
    """

    state: str
    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The peer sent a signal. `data` is any JSON: ignore what you do not know."""

    data: Any


@dataclass(frozen=True, slots=True)
class ChatReceived:
    """The peer wrote a message, now or while this client was disconnected."""

    message: Message


@dataclass(frozen=True, slots=True)
class Typing:
    """The peer is typing."""


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """The peer requested, accepted or declined video: `action` is `request`, `accept` or `decline`."""

    action: str


@dataclass(frozen=True, slots=True)
class Inactivity:
    """A text call is about to end because of inactivity (`state` is `warning`), or no longer is (`cleared`)."""

    state: str
    ends_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The agreed length of the call is almost over."""

    ends_in_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The call has ended; no event follows.

    `reason` is one of the protocol's reasons. If the call ended while this client was disconnected, and the cluster no
    longer knows the reason, it is the error code of the refused rejoin: `room_ended`, `room_not_found` or
    `not_a_member`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Rejoined:
    """This client was disconnected and is back in the call. Signals of a peer without an SDK may have been lost.

    `resumed` is whether the session continued (True), or the room was joined again.
    """

    resumed: bool


@dataclass(frozen=True, slots=True)
class IceServersChanged:
    """New TURN credentials, for use from the next ICE restart on."""

    ice_servers: tuple[IceServer, ...]


@dataclass(frozen=True, slots=True)
class SignalRefused:
    """The cluster refused a signal or a typing notification. `retry_after_seconds`: when it would accept one."""

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

"""Why a connection is closed: the code, the reason, and whether the client may reconnect. Closes are data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MayReconnect = Literal["no", "yes", "fresh_token"]


@dataclass(frozen=True, slots=True)
class CloseCode:
    """A WebSocket close. `may_reconnect` is what the protocol document tells clients to do."""

    code: int
    reason: str
    may_reconnect: MayReconnect


BAD_FRAME = CloseCode(4400, "bad frame", "no")
UNAUTHORIZED = CloseCode(4401, "unauthorized", "fresh_token")
ORIGIN_REFUSED = CloseCode(4403, "origin refused", "no")
NO_HELLO = CloseCode(4408, "no hello in time", "yes")
REPLACED = CloseCode(4409, "replaced by another connection of the same user", "no")
DISCONNECTED = CloseCode(4409, "disconnected by the app's backend", "no")
TOO_LARGE = CloseCode(4413, "frame too large", "no")
RATE_LIMITED = CloseCode(4429, "rate limited", "yes")
DRAINING = CloseCode(4503, "draining", "yes")
TOO_SLOW = CloseCode(4508, "too slow", "yes")

CLOSES = (
    BAD_FRAME,
    UNAUTHORIZED,
    ORIGIN_REFUSED,
    NO_HELLO,
    REPLACED,
    DISCONNECTED,
    TOO_LARGE,
    RATE_LIMITED,
    DRAINING,
    TOO_SLOW,
)

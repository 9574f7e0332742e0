"""The limits in a node's `welcome`, and checks against them before anything is sent.

A node counts refused frames, and closes the connection of a client that keeps sending them. So whatever it would refuse
is refused here, at once and with the same error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from keepline.client.errors import ProtocolError, RequestFailed

REASON_LENGTH = 500

_ROOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may send. The defaults are for nodes that send no limits, and support no keys."""

    frames_per_second: float = 50.0
    frames_burst: float = 200
    frame_bytes: int = 65_536
    chat_length: int = 500
    chat_key: int = 0

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read `welcome.limits`; missing values keep their default. Raises ProtocolError."""
        names = ("frames_per_second", "frames_burst", "frame_bytes", "chat_length", "chat_key")
        told = {name: raw[name] for name in names if name in raw}
        if not all(isinstance(value, int | float) and value > 0 for value in told.values()):
            raise ProtocolError(f"limits that cannot be read: {told}")
        return cls(**told)


class Pace:
    """Paces the frames of one connection so that the node never counts too many.

    Frames that were sent apart may arrive together: a client that used its full allowance would exceed the limit after
    every stall of the network. Seven tenths of the burst and nine of the rate tolerate a stall of a second.
    """

    _SHARE_OF_RATE = 0.9
    _SHARE_OF_BURST = 0.7

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._rate = self._SHARE_OF_RATE * limits.frames_per_second
        self._burst = max(1.0, self._SHARE_OF_BURST * limits.frames_burst)
        self._clock = clock
        self._left = self._burst
        self._at = clock()

    @property
    def free(self) -> bool:
        """Whether a frame may be sent now."""
        return self._refilled() >= 1

    def reserve(self) -> float:
        """Reserve the place of one frame. Returns the seconds to wait before it is sent."""
        self._left, self._at = self._refilled() - 1, self._clock()
        return max(0.0, -self._left / self._rate)

    def pause(self, seconds: float) -> None:
        """The node asks for a pause of that many seconds."""
        self._left, self._at = min(self._refilled(), 1 - self._rate * seconds), self._clock()

    def _refilled(self) -> float:
        return min(self._burst, self._left + self._rate * (self._clock() - self._at))


def room_id_of(given: str) -> str:
    """A room id in its canonical form, which is lower case. Raises RequestFailed."""
    room_id = str(given).lower()
    if not _ROOM_ID.fullmatch(room_id):
        raise RequestFailed(
            "bad_request", f"{str(given)[:64]!r} is not a room id: it must be a UUID with hyphens"
        )
    return room_id


def check_text(name: str, text: str, longest: int) -> None:
    """Raise RequestFailed for a text that a node refuses. Characters are code points, as in `len`."""
    if not isinstance(text, str):
        raise RequestFailed("bad_request", f"{name} should be a string, not {type(text).__name__}")
    if not 1 <= len(text) <= longest:
        raise RequestFailed(
            "bad_request", f"{name} has {len(text)} characters (code points); 1 to {longest} are allowed"
        )
    if "\0" in text:
        raise RequestFailed("bad_request", f"{name} may not contain U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestFailed("bad_request", f"{name} is cut through a character at {error.start}") from None


def check_size(text: bytes, limits: Limits) -> None:
    """Raise RequestFailed for a frame that a node refuses, which would end the connection for good."""
    if len(text) > limits.frame_bytes:
        raise RequestFailed(
            "too_large", f"the frame has {len(text)} bytes; the node takes {limits.frame_bytes} at most"
        )

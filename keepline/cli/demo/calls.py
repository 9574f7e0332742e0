"""The calls of the demo page: their short codes, and who has which of the two seats. No I/O.

A seat is one user of the room. A visitor gets a seat with a key, which the page keeps as long as its tab lives, so that
a reload returns to the same seat. A visitor without a seat's key gets an unused seat, first the guest's. The seat comes
with a key for the *Kill my node* button, which can be used once.
"""

import secrets
import uuid
from dataclasses import dataclass, field

MOST_CALLS = 1_000
CALL_SECONDS = 24 * 3600.0
TAKEN_SECONDS = 5.0
"""A seat that was assigned this long ago and has no connection may be given to another visitor. Less than the grace
period, so that a guest who closed the tab can return by the link.
"""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without characters that are easily confused
CODE_LENGTH = 8
_KEY_BYTES = 16


@dataclass(slots=True)
class Seat:
    """One user of a call. `first` is the index of the node that its client tries first."""

    user: uuid.UUID
    first: int
    key: str | None = field(default=None, repr=False)
    kill_key: str | None = field(default=None, repr=False)
    taken_at: float = 0.0

    def take(self, now: float) -> None:
        """Assign it, with new keys."""
        self.key, self.kill_key = _new_key(), _new_key()
        self.taken_at = now


@dataclass(frozen=True, slots=True)
class DemoCall:
    """A room of the cluster with its code."""

    code: str
    room: str
    seats: tuple[Seat, Seat]
    opened_at: float

    def seat(self, key: str | None, connected: tuple[bool, bool], now: float) -> Seat | None:
        """The seat of a visitor: the one of `key`, or a free one, which is then taken. None if both are in use."""
        for seat in self.seats:
            if _same(seat.key, key):
                return seat
        for seat, is_connected in reversed([*zip(self.seats, connected, strict=True)]):
            if seat.key is None or (not is_connected and now - seat.taken_at > TAKEN_SECONDS):
                seat.take(now)
                return seat
        return None

    def spend_kill_key(self, key: str, kill_key: str) -> str | None:
        """Use the key of the button, and return the next one; None if it is not the key of that seat."""
        for seat in self.seats:
            if _same(seat.key, key) and _same(seat.kill_key, kill_key):
                seat.kill_key = _new_key()
                return seat.kill_key
        return None


class Calls:
    """The calls that can be joined by their code: those of the last day, and at most the newest thousand."""

    def __init__(self) -> None:
        self._calls: dict[str, DemoCall] = {}

    def open(
        self, room: str, users: tuple[uuid.UUID, uuid.UUID], first: tuple[int, int], now: float
    ) -> DemoCall:
        """Assign a code to a new room. Its first seat is taken by the visitor who opened it."""
        self._forget(now)
        seats = (Seat(users[0], first[0]), Seat(users[1], first[1]))
        call = DemoCall(_new_code(), room, seats, now)
        call.seats[0].take(now)
        self._calls[call.code] = call
        return call

    def find(self, code: str, now: float) -> DemoCall | None:
        """The call with this code; None if it does not exist or has expired."""
        self._forget(now)
        return self._calls.get(code.lower())

    def _forget(self, now: float) -> None:
        for code, call in list(self._calls.items()):  # oldest first
            if len(self._calls) < MOST_CALLS and now - call.opened_at < CALL_SECONDS:
                return
            del self._calls[code]


def _new_code() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(CODE_LENGTH))


def _new_key() -> str:
    return secrets.token_urlsafe(_KEY_BYTES)


def _same(kept: str | None, given: str | None) -> bool:
    return kept is not None and given is not None and secrets.compare_digest(kept.encode(), given.encode())

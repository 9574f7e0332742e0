"""What a close code means for reconnecting: the protocol's table, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ComeBack(Enum):
    """Whether, and when, a client may reconnect."""

    NEVER = "never"
    BACKOFF = "with backoff"
    FRESH_TOKEN = "with a fresh token, at once"  # noqa: S105 - a rule, not a secret
    AFTER_GOODBYE = "after the time in goodbye"


NORMAL_CLOSURE = 1000
ABNORMAL_CLOSURE = 1006
INTERNAL_ERROR = 1011
UNAUTHORIZED = 4401
REPLACED = 4409
RATE_LIMITED = 4429

COME_BACK = {
    NORMAL_CLOSURE: ComeBack.BACKOFF,
    4400: ComeBack.NEVER,
    UNAUTHORIZED: ComeBack.FRESH_TOKEN,
    4403: ComeBack.NEVER,
    4408: ComeBack.BACKOFF,
    REPLACED: ComeBack.NEVER,
    4413: ComeBack.NEVER,
    RATE_LIMITED: ComeBack.BACKOFF,
    4503: ComeBack.AFTER_GOODBYE,
    4508: ComeBack.BACKOFF,
}


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended."""

    code: int
    reason: str

    @property
    def come_back(self) -> ComeBack:
        """The rule for a close code. Unlisted codes are failures of the network or a node."""
        return COME_BACK.get(self.code, ComeBack.BACKOFF)

"""Logs each refused client, so that its operator can find the reason.

A refused client can return at once, and could fill the disk. So each kind of line is limited per minute. Lines contain
no secrets: no token, no query, and only the beginning of what a client sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from signal_node.limits.addresses import address_hash

LINES = 10
SECONDS = 60.0
MAX_TEXT = 120

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Minute:
    begun_at: float
    lines: int = 0
    unlogged: int = 0


class RefusalLog:
    """Writes at most ten lines a minute of each kind. The next minute's first line has the number of omitted ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minutes: dict[str, _Minute] = {}

    def handshake_refused(self, address: str | None, status: int, why: str) -> None:
        """The client does not speak our protocol, or used the wrong address."""
        if (unlogged := self._unlogged("handshake")) is not None:
            _log.info(
                "handshake_refused",
                address_hash=_hash(address),
                status=status,
                reason=_cut(why),
                unlogged=unlogged,
            )

    def origin_refused(self, address: str | None, origin: str) -> None:
        """The page's origin is not allowed."""
        if (unlogged := self._unlogged("origin")) is not None:
            _log.info("origin_refused", address_hash=_hash(address), origin=_cut(origin), unlogged=unlogged)

    def token_refused(self, address: str | None, session: str, why: str) -> None:
        """The token is invalid."""
        if (unlogged := self._unlogged("token")) is not None:
            _log.info(
                "token_refused",
                address_hash=_hash(address),
                session=session,
                reason=_cut(why),
                unlogged=unlogged,
            )

    def _unlogged(self, kind: str) -> int | None:
        """Number of omitted lines since the last one; None if this one is omitted too."""
        now = self._clock()
        minute = self._minutes.get(kind)
        if minute is None or now - minute.begun_at >= SECONDS:
            left = 0 if minute is None else minute.unlogged
            self._minutes[kind] = _Minute(now, lines=1)
            return left
        if minute.lines >= LINES:
            minute.unlogged += 1
            return None
        minute.lines += 1
        return 0


def _hash(address: str | None) -> str | None:
    return None if address is None else address_hash(address)


def _cut(text: str) -> str:
    return text[:MAX_TEXT]

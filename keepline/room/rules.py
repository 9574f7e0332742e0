"""The numbers that the rules of a room depend on."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGES = 1_000
"""Lines of chat that are kept of a room."""

MAX_TEXT = 500
"""Characters in a line of chat."""

MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 60, 1_800
"""Bounds of the agreed length of a call; 0 means no limit."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long things may take, in ms.

    `crowd_grace_ms` is how long a side that was lost with its node may be away while the cluster takes in a crowd.
    """

    no_show_ms: int = 60_000
    grace_ms: int = 10_000
    crowd_grace_ms: int = 60_000
    text_idle_ms: int = 120_000
    text_warning_ms: int = 60_000
    ending_warning_ms: int = 30_000

"""The numbers in the rules of a room."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGES = 1_000
"""Number of chat messages that a room keeps."""

MAX_TEXT = 500
"""Maximum characters in a chat message."""

MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 60, 1_800
"""Bounds of the agreed length of a call; 0 means no limit."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations, in ms.

    `crowd_grace_ms` is the grace period of a side that was lost with its node, while the cluster is letting in a crowd.
    """

    no_show_ms: int = 60_000
    grace_ms: int = 10_000
    crowd_grace_ms: int = 60_000
    text_idle_ms: int = 120_000
    text_warning_ms: int = 60_000
    ending_warning_ms: int = 30_000

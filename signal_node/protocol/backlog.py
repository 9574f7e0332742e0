"""Frames that wait for the answer to hello."""

from __future__ import annotations

MAX_FRAMES = 64
MAX_BYTES = 131_072
"""How many frames may wait, and how large they may be together."""


class Backlog:
    """Texts of frames, in the order in which they came."""

    __slots__ = ("_bytes", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._bytes = 0

    def add(self, text: str) -> bool:
        """Let a frame wait; False when too much waits already."""
        self._bytes += len(text.encode())
        if len(self._texts) >= MAX_FRAMES or self._bytes > MAX_BYTES:
            return False
        self._texts.append(text)
        return True

    def take(self) -> list[str]:
        """Take all that waits."""
        texts, self._texts, self._bytes = self._texts, [], 0
        return texts

"""Frames that wait for the answer to `hello`."""

from __future__ import annotations

MAX_FRAMES = 64
MAX_BYTES = 131_072
"""Maximum number of waiting frames, and their maximum total size."""


class Backlog:
    """The texts of the frames, in order of arrival."""

    __slots__ = ("_bytes", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._bytes = 0

    def add(self, text: str) -> bool:
        """Add a frame; False if too much is waiting already."""
        self._bytes += len(text.encode())
        if len(self._texts) >= MAX_FRAMES or self._bytes > MAX_BYTES:
            return False
        self._texts.append(text)
        return True

    def take(self) -> list[str]:
        """Take all waiting frames."""
        texts, self._texts, self._bytes = self._texts, [], 0
        return texts

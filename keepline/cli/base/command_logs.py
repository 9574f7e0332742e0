"""Logs of commands: warnings, on stderr, for they do not belong among the results."""

import io
import sys
from typing import TextIO, cast

from keepline.ops import logs


class _Stderr(io.TextIOBase):
    """Whatever stderr is at the time."""

    def write(self, text: str) -> int:
        """Write it there."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Show what was written."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return sys.stderr.isatty()


def configure() -> None:
    """Let what libraries and our own code log go to stderr."""
    logs.configure(None, "warning", stream=cast(TextIO, _Stderr()))

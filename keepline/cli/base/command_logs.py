"""Logs of commands: warnings only, on stderr, separate from results on stdout."""

import io
import sys
from typing import TextIO, cast

from keepline.ops import logs


class _Stderr(io.TextIOBase):
    """A stream that always writes to the current stderr."""

    def write(self, text: str) -> int:
        """Write to stderr."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether stderr is a terminal."""
        return sys.stderr.isatty()


def configure() -> None:
    """Send the logs of libraries and of our own code to stderr."""
    logs.configure(None, "warning", stream=cast(TextIO, _Stderr()))

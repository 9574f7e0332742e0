"""What happened in a run, in order: printed when asked for, and digested to tell two runs apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import blake2b


def say(line: str) -> None:
    """Tell whoever runs the simulation."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Violation(AssertionError):
    """Something that must never be."""


class Trace:
    """The timeline. `now` gives the seconds of the virtual clock."""

    def __init__(self, now: Callable[[], float], *, verbose: bool) -> None:
        self._now = now
        self._verbose = verbose
        self._digest = blake2b(digest_size=8)
        self.violations: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Something happened."""
        line = f"{self._now():10.4f}  {who:<12} {what}"
        self._digest.update(line.encode())
        if self._verbose:
            say(line)

    def remark(self, what: str) -> None:
        """Something worth printing that is not part of what happened."""
        if self._verbose:
            say(f"{self._now():10.4f}  {'log':<12} {what}")

    def violate(self, what: str) -> None:
        """Something that must never be has happened; the run ends when it is looked at next."""
        self.note("VIOLATION", what)
        self.violations.append(f"at {self._now():.3f} s: {what}")

    @property
    def digest(self) -> str:
        """Equal for runs in which the same happened at the same moments."""
        return self._digest.hexdigest()

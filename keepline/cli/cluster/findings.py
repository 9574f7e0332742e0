"""What `keepline doctor` finds, and what it would do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    `proof` is all that was seen of it: a finding counts when a second look sees the same, for what is on its way looks
    like a disorder for a moment. `repair` is what a node is asked to do about it, None for what needs a person; `ask`
    is the node to be asked, None for any. `advice` says what a person can do.
    """

    kind: str
    where: str
    what: str
    proof: tuple[Any, ...] = ()
    repair: Mapping[str, Any] | None = None
    ask: str | None = None
    advice: str = ""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes it the same finding at a second look: words of what is not repaired may have other numbers."""
        return (
            (self.kind, self.where) if self.repair is None else (self.kind, self.where, self.what, self.proof)
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "fixable": self.repair is not None,
            "advice": self.advice,
        }

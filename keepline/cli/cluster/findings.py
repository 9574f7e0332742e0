"""The problems that `keepline doctor` finds, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    `proof` is the evidence: a problem counts if a second check finds the same evidence, because work in progress looks
    inconsistent for a moment. `repair` is the request to a node that repairs it; None if a person has to. `ask` is the
    node to send it to; None for any node. `advice` tells a person what to do.
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
        """The identity of a problem across two checks. The text of a problem without repair may contain changing
        numbers.
        """
        return (
            (self.kind, self.where) if self.repair is None else (self.kind, self.where, self.what, self.proof)
        )

    def as_json(self) -> dict[str, Any]:
        """The problem in a form for programs."""
        return {
            "kind": self.kind,
            "where": self.where,
            "what": self.what,
            "fixable": self.repair is not None,
            "advice": self.advice,
        }

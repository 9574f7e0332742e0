"""What a program knows about its dependencies, and whether it may take new work.

Three questions that must not be mixed up: is the process alive (it answers), is it ready (conditions), and
how are its dependencies (probes). A dependency that is away makes a program degraded, not dead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "degraded", "down"]
Clock = Callable[[], float]
_ERROR_CHARACTERS = 200


@dataclass(slots=True)
class Probe:
    """The last proof for and against one dependency. Times are seconds of the clock that was injected.

    `ok`: proved within `fresh_seconds` and nothing failed since. `degraded`: failing, or silent for longer,
    but proved within `down_seconds`. `down`: no proof for longer than that, or never.
    """

    clock: Clock
    fresh_seconds: float
    down_seconds: float
    succeeded_at: float | None = None
    failed_at: float | None = None
    error: str | None = None

    def succeeded(self) -> None:
        """Record that the dependency just did what it is for."""
        self.succeeded_at = self.clock()
        self.error = None

    def failed(self, error: BaseException | str) -> None:
        """Record that it did not, and why."""
        self.failed_at = self.clock()
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.error = text[:_ERROR_CHARACTERS]

    @property
    def status(self) -> Status:
        """How the dependency is now."""
        if self.succeeded_at is None:
            return "down"
        age = self.clock() - self.succeeded_at
        if age > self.down_seconds:
            return "down"
        return "ok" if self.error is None and age <= self.fresh_seconds else "degraded"

    def report(self) -> dict[str, Any]:
        """Describe it as JSON; ages are ms since the last proof and the last failure, null for none."""
        now = self.clock()
        return {
            "status": self.status,
            "age_ms": None if self.succeeded_at is None else round((now - self.succeeded_at) * 1000),
            "failed_ms_ago": None if self.failed_at is None else round((now - self.failed_at) * 1000),
            "error": self.error,
        }


@dataclass(slots=True)
class Health:
    """The probes and the conditions of one program."""

    clock: Clock
    _probes: dict[str, Probe] = field(default_factory=dict, init=False)
    _conditions: dict[str, Callable[[], str | None]] = field(default_factory=dict, init=False)

    def probe(self, name: str, *, fresh_seconds: float = 15.0, down_seconds: float = 30.0) -> Probe:
        """Add a dependency and return where to record its proofs. Raises ValueError for a name taken."""
        if name in self._probes:
            raise ValueError(f"there is a probe named {name} already")
        probe = Probe(self.clock, fresh_seconds, down_seconds)
        self._probes[name] = probe
        return probe

    def require(self, name: str, why_not: Callable[[], str | None]) -> None:
        """Add a condition of readiness: `why_not()` returns None when it holds, else the reason in words."""
        self._conditions[name] = why_not

    def reasons(self) -> dict[str, str]:
        """Return why the program may not take new work, by condition; empty when it may."""
        found = ((name, why_not()) for name, why_not in self._conditions.items())
        return {name: reason for name, reason in found if reason is not None}

    @property
    def status(self) -> Status:
        """`ok` when every dependency is; else `degraded`, for the process itself is alive to say so."""
        return "ok" if all(probe.status == "ok" for probe in self._probes.values()) else "degraded"

    def report(self) -> dict[str, Any]:
        """Describe the program and each dependency as JSON."""
        reasons = self.reasons()
        return {
            "status": self.status,
            "ready": not reasons,
            "reasons": reasons,
            "dependencies": {name: probe.report() for name, probe in self._probes.items()},
        }

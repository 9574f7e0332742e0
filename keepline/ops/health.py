"""What a program knows about its dependencies, and whether it may take new work.

Three questions that must not be mixed up: is the process alive (it answers), is it ready (conditions), and
how are its dependencies (probes). A dependency that is away makes a program degraded, not dead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["ok", "degraded", "down"]
Clock = Callable[[], float]
_ERROR_CHARACTERS = 200


class Dependency(Protocol):
    """What a program needs, and how it is."""

    def age(self) -> float | None:
        """Seconds since it last did what it is for; None when it never has."""

    @property
    def status(self) -> Status:
        """How it is now."""

    def report(self) -> dict[str, Any]:
        """Describe it as JSON; ages are in ms."""


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

    def age(self) -> float | None:
        """Seconds since the last proof, None before the first one."""
        return None if self.succeeded_at is None else self.clock() - self.succeeded_at

    @property
    def status(self) -> Status:
        """How the dependency is now."""
        status = _status_at(self.age(), self.fresh_seconds, self.down_seconds)
        return "degraded" if status == "ok" and self.error is not None else status

    def report(self) -> dict[str, Any]:
        """Describe it as JSON; ages are ms since the last proof and the last failure, null for none."""
        return {
            "status": self.status,
            "age_ms": _ms(self.age()),
            "failed_ms_ago": _ms(None if self.failed_at is None else self.clock() - self.failed_at),
            "error": self.error,
        }


@dataclass(slots=True)
class LastTry:
    """What a program does now and then: `ok` until a try fails, and from then on `degraded` until one succeeds.

    Silence proves nothing here, unlike that of a `Probe`.
    """

    clock: Clock
    succeeded_at: float | None = None
    failed_at: float | None = None
    error: str | None = None

    def succeeded(self) -> None:
        """Record that the last try did what it should."""
        self.succeeded_at = self.clock()
        self.error = None

    def failed(self, error: str) -> None:
        """Record that the last try failed, and why."""
        self.failed_at = self.clock()
        self.error = error[:_ERROR_CHARACTERS]

    def age(self) -> float | None:
        """Seconds since a try succeeded, None before the first one."""
        return None if self.succeeded_at is None else self.clock() - self.succeeded_at

    @property
    def status(self) -> Status:
        """How it went."""
        return "ok" if self.error is None else "degraded"

    def report(self) -> dict[str, Any]:
        """Describe it as JSON, in the form of a probe's report."""
        return {
            "status": self.status,
            "age_ms": _ms(self.age()),
            "failed_ms_ago": _ms(None if self.failed_at is None else self.clock() - self.failed_at),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Pulse:
    """A dependency whose proofs come by themselves: `age()` tells the seconds since the last, None before the first.

    `problem()` says why the last attempt was no proof, None if it was.
    """

    age: Callable[[], float | None]
    fresh_seconds: float
    down_seconds: float
    problem: Callable[[], str | None] = lambda: None

    @property
    def status(self) -> Status:
        """How the dependency is now."""
        return _status_at(self.age(), self.fresh_seconds, self.down_seconds)

    def report(self) -> dict[str, Any]:
        """Describe it as JSON."""
        error = self.problem()
        return {"status": self.status, "age_ms": _ms(self.age()), "failed_ms_ago": None, "error": error}


def _status_at(age: float | None, fresh_seconds: float, down_seconds: float) -> Status:
    if age is None or age > down_seconds:
        return "down"
    return "ok" if age <= fresh_seconds else "degraded"


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


@dataclass(slots=True)
class Health:
    """The probes and the conditions of one program."""

    clock: Clock
    dependencies: dict[str, Dependency] = field(default_factory=dict, init=False)
    _conditions: dict[str, Callable[[], str | None]] = field(default_factory=dict, init=False)
    _warnings: dict[str, Callable[[], str | None]] = field(default_factory=dict, init=False)

    def probe(self, name: str, *, fresh_seconds: float = 15.0, down_seconds: float = 30.0) -> Probe:
        """Add a dependency and return where to record its proofs. Raises ValueError for a name taken."""
        probe = Probe(self.clock, fresh_seconds, down_seconds)
        self._add(name, probe)
        return probe

    def last_try(self, name: str) -> LastTry:
        """Add something that is tried and return where to record how that went. Raises ValueError for a name taken."""
        last = LastTry(self.clock)
        self._add(name, last)
        return last

    def pulse(
        self,
        name: str,
        age: Callable[[], float | None],
        *,
        fresh_seconds: float,
        down_seconds: float,
        problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Add a dependency that somebody else has the proofs of. Raises ValueError for a name taken."""
        self._add(name, Pulse(age, fresh_seconds, down_seconds, problem))

    def _add(self, name: str, dependency: Dependency) -> None:
        if name in self.dependencies:
            raise ValueError(f"there is a dependency named {name} already")
        self.dependencies[name] = dependency

    def require(self, name: str, why_not: Callable[[], str | None]) -> None:
        """Add a condition of readiness: `why_not()` returns None when it holds, else the reason in words."""
        self._conditions[name] = why_not

    def warn(self, name: str, why: Callable[[], str | None]) -> None:
        """Add what makes other instances preferable without failing readiness: a reason in words, None for none."""
        self._warnings[name] = why

    def warnings(self) -> dict[str, str]:
        """Return what makes other instances preferable now, by name."""
        return {name: reason for name, why in self._warnings.items() if (reason := why()) is not None}

    def reasons(self) -> dict[str, str]:
        """Return why the program may not take new work, by condition; empty when it may."""
        return {name: reason for name, reason in self.failed().items() if reason is not None}

    def failed(self) -> dict[str, str | None]:
        """Return why each condition does not hold; None for those that do."""
        return {name: why_not() for name, why_not in self._conditions.items()}

    @property
    def status(self) -> Status:
        """`ok` when every dependency is; else `degraded`, for the process itself is alive to say so."""
        return "ok" if all(one.status == "ok" for one in self.dependencies.values()) else "degraded"

    def report(self) -> dict[str, Any]:
        """Describe the program and each dependency as JSON."""
        reasons = self.reasons()
        return {
            "status": self.status,
            "ready": not reasons,
            "reasons": reasons,
            "warnings": self.warnings(),
            "dependencies": {name: one.report() for name, one in self.dependencies.items()},
        }

"""The state of a program's dependencies, and whether it accepts new work.

Three separate questions: is the process alive (it answers), is it ready (conditions), and how are its dependencies
(probes)? A missing dependency makes a program degraded, not dead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["ok", "degraded", "down"]
Clock = Callable[[], float]
_ERROR_CHARACTERS = 200


class Dependency(Protocol):
    """A dependency and its state."""

    def age(self) -> float | None:
        """Seconds since it last worked; None if it never has."""

    @property
    def status(self) -> Status:
        """Its current state."""

    def report(self) -> dict[str, Any]:
        """Its state as JSON; ages are in ms."""


@dataclass(slots=True)
class Probe:
    """The last success and the last failure of one dependency. Times are seconds of the injected clock.

    `ok`: a success within `fresh_seconds` and no failure since. `degraded`: failing, or silent for longer, but with a
    success within `down_seconds`. `down`: no success for longer than that, or never.
    """

    clock: Clock
    fresh_seconds: float
    down_seconds: float
    succeeded_at: float | None = None
    failed_at: float | None = None
    error: str | None = None

    def succeeded(self) -> None:
        """Record a success."""
        self.succeeded_at = self.clock()
        self.error = None

    def failed(self, error: BaseException | str) -> None:
        """Record a failure and its reason."""
        self.failed_at = self.clock()
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.error = text[:_ERROR_CHARACTERS]

    def age(self) -> float | None:
        """Seconds since the last success; None before the first one."""
        return None if self.succeeded_at is None else self.clock() - self.succeeded_at

    @property
    def status(self) -> Status:
        """Its current state."""
        status = _status_at(self.age(), self.fresh_seconds, self.down_seconds)
        return "degraded" if status == "ok" and self.error is not None else status

    def report(self) -> dict[str, Any]:
        """Its state as JSON; ages are ms since the last success and failure, null for none."""
        return {
            "status": self.status,
            "age_ms": _ms(self.age()),
            "failed_ms_ago": _ms(None if self.failed_at is None else self.clock() - self.failed_at),
            "error": self.error,
        }


@dataclass(slots=True)
class LastTry:
    """Something that a program does occasionally: `ok` until an attempt fails, then `degraded` until one succeeds.

    Unlike for a `Probe`, silence means nothing.
    """

    clock: Clock
    succeeded_at: float | None = None
    failed_at: float | None = None
    error: str | None = None

    def succeeded(self) -> None:
        """Record that the last attempt succeeded."""
        self.succeeded_at = self.clock()
        self.error = None

    def failed(self, error: str) -> None:
        """Record that the last attempt failed, and why."""
        self.failed_at = self.clock()
        self.error = error[:_ERROR_CHARACTERS]

    def age(self) -> float | None:
        """Seconds since an attempt succeeded; None before the first one."""
        return None if self.succeeded_at is None else self.clock() - self.succeeded_at

    @property
    def status(self) -> Status:
        """Its current state."""
        return "ok" if self.error is None else "degraded"

    def report(self) -> dict[str, Any]:
        """Its state as JSON, in the form of a probe's report."""
        return {
            "status": self.status,
            "age_ms": _ms(self.age()),
            "failed_ms_ago": _ms(None if self.failed_at is None else self.clock() - self.failed_at),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Pulse:
    """A dependency that measures itself: `age()` is the seconds since its last success, None before the first one.

    `problem()` is why the last attempt failed; None if it succeeded.
    """

    age: Callable[[], float | None]
    fresh_seconds: float
    down_seconds: float
    problem: Callable[[], str | None] = lambda: None

    @property
    def status(self) -> Status:
        """Its current state."""
        return _status_at(self.age(), self.fresh_seconds, self.down_seconds)

    def report(self) -> dict[str, Any]:
        """Its state as JSON."""
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
        """Add a dependency, and return its probe. Raises ValueError if the name is taken."""
        probe = Probe(self.clock, fresh_seconds, down_seconds)
        self._add(name, probe)
        return probe

    def last_try(self, name: str) -> LastTry:
        """Add an occasional activity, and return where to record its results. Raises ValueError if the name is
        taken.
        """
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
        """Add a dependency that measures itself. Raises ValueError if the name is taken."""
        self._add(name, Pulse(age, fresh_seconds, down_seconds, problem))

    def _add(self, name: str, dependency: Dependency) -> None:
        if name in self.dependencies:
            raise ValueError(f"there is a dependency named {name} already")
        self.dependencies[name] = dependency

    def require(self, name: str, why_not: Callable[[], str | None]) -> None:
        """Add a readiness condition: `why_not()` returns None if it is met, otherwise the reason."""
        self._conditions[name] = why_not

    def warn(self, name: str, why: Callable[[], str | None]) -> None:
        """Add a reason to prefer other instances that does not affect readiness: a text, or None."""
        self._warnings[name] = why

    def warnings(self) -> dict[str, str]:
        """Return the current reasons to prefer other instances, by name."""
        return {name: reason for name, why in self._warnings.items() if (reason := why()) is not None}

    def reasons(self) -> dict[str, str]:
        """Return why the program accepts no new work, by condition; empty if it does."""
        return {name: reason for name, reason in self.failed().items() if reason is not None}

    def failed(self) -> dict[str, str | None]:
        """Return why each condition is not met; None for those that are."""
        return {name: why_not() for name, why_not in self._conditions.items()}

    @property
    def status(self) -> Status:
        """`ok` if every dependency is; otherwise `degraded`, because the process itself is alive to answer."""
        return "ok" if all(one.status == "ok" for one in self.dependencies.values()) else "degraded"

    def report(self) -> dict[str, Any]:
        """The program and each dependency as JSON."""
        reasons = self.reasons()
        return {
            "status": self.status,
            "ready": not reasons,
            "reasons": reasons,
            "warnings": self.warnings(),
            "dependencies": {name: one.report() for name, one in self.dependencies.items()},
        }

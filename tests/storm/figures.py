"""What a wave of comings-in was like, in figures and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.storm.client import Place
from tests.storm.crowd import Wave
from tests.storm.stage import Stage, Usage

CAME_IN = ("joined", "resumed")
ENDED = "ended: "
REFUSED = ("refused", "closed", "not connected", "no ")


@dataclass(frozen=True, slots=True)
class Pair:
    """The honest pair's signals of some time, in ms."""

    signals: int
    p50: float
    p99: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Pair:
        """Take them in order of length."""
        if not milliseconds:
            return cls(0, 0.0, 0.0)
        size = len(milliseconds)
        return cls(size, milliseconds[size // 2], milliseconds[size * 99 // 100])

    def __str__(self) -> str:
        return f"{self.signals} signals, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms"


@dataclass(frozen=True, slots=True)
class Figures:
    """One wave. CPU time in ms for each that came in: of all nodes together, of Redis, and of the crowd itself."""

    title: str
    wave: Wave
    inside: int
    outside: int
    node_cpu_ms: float
    redis_cpu_ms: float
    crowd_cpu_ms: float
    peak_megabytes: float
    pair: Pair

    @property
    def rate(self) -> float:
        """Comings-in a second."""
        return len(self.wave.waits) / self.wave.seconds if self.wave.seconds else 0.0

    @property
    def ended(self) -> dict[str, int]:
        """Sides whose call is over, by reason."""
        return self.wave.counted(ENDED)

    def __str__(self) -> str:
        return "\n  ".join([f"{self.title}: {self.inside} inside, {self.outside} outside", *self._lines()])

    def _lines(self) -> Iterator[str]:
        wave = self.wave
        if wave.waits:
            p50, p99, longest = (wave.quantile(share) for share in (0.5, 0.99, 1))
            cpu = f"CPU {self.node_cpu_ms:.2f} ms of the nodes, {self.redis_cpu_ms:.2f} ms of Redis"
            cpu += f" and {self.crowd_cpu_ms:.2f} ms of the crowd"
            yield f"{_list(wave.counted(*CAME_IN))} in {wave.seconds:.1f} s: {self.rate:,.0f}/s, {cpu} for each"
            yield f"in after p50 {p50:.2f} s, p99 {p99:.2f} s, max {longest:.2f} s"
        yield f"sides of calls that ended: {_list(self.ended)}"
        yield f"refusals and time-outs: {_list(wave.counted(*REFUSED))}"
        yield f"peak memory of a node: {self.peak_megabytes:.0f} MB"
        yield f"honest pair: {self.pair}"


def figures(title: str, stage: Stage, before: Usage) -> Figures:
    """Those of the crowd's wave, which has begun at `before`."""
    crowd, after = stage.crowd, stage.usage()
    came = len(crowd.wave.waits) or 1
    return Figures(
        title,
        crowd.wave,
        crowd.count(Place.INSIDE),
        crowd.count(Place.OUTSIDE),
        1000 * sum(max(0.0, now - then) for now, then in zip(after.nodes, before.nodes, strict=True)) / came,
        1000 * max(0.0, after.redis - before.redis) / came,
        1000 * (after.crowd - before.crowd) / came,
        max(stage.peak_megabytes(node) for node in stage.living()),
        Pair.of(stage.pair_milliseconds(before.at, after.at)),
    )


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} × {what}" for what, n in counts.items()) or "none"

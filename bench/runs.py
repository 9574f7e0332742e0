"""The measurements, round by round. Servers take turns, so that changes of the machine affect all alike."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import Load, Result
from bench.pairs import pairs
from bench.processes import resident_bytes
from bench.servers import Kind, Server

IN_FLIGHT = (1, 8)
GROWTH_PAIRS = (10, 100, 1_000)
IDLE_PAIRS = 500
"""Pairs whose memory is measured: 1,000 connections."""


@dataclass(frozen=True, slots=True)
class Options:
    """The size of the measurements."""

    pairs: int
    seconds: float
    rounds: int
    rate: float


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one server in a scenario: the median of its rounds."""

    part: str
    server: str
    scenario: str
    rounds: int
    result: Result


Say = Callable[[str], None]


@asynccontextmanager
async def serving(kind: Kind) -> AsyncIterator[Server]:
    """A server in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="keepline-bench-", ignore_cleanup_errors=True) as folder:
        async with kind.start(Path(folder)) as server:
            yield server


async def relay(part: str, kinds: Sequence[Kind], options: Options, say: Say) -> list[Row]:
    """Bounced and paced load on each server."""
    found: dict[tuple[str, str], list[Result]] = {}
    for turn in range(options.rounds):
        for kind in kinds:
            say(f"{part}: {kind.name}, round {turn + 1} of {options.rounds}")
            async with serving(kind) as server, pairs(server, options.pairs) as load:
                for scenario, result in [item async for item in _scenarios(load, options)]:
                    found.setdefault((kind.name, scenario), []).append(result)
    return _rows(part, found)


async def _scenarios(load: Load, options: Options) -> AsyncIterator[tuple[str, Result]]:
    for in_flight in IN_FLIGHT:
        yield f"{in_flight} in flight", await load.bounce(in_flight, options.seconds)
    yield f"{options.rate:,.0f}/s", await load.pace(options.rate, options.seconds)


async def growth(kinds: Sequence[Kind], options: Options, say: Say) -> list[Row]:
    """One message in flight per pair, with more and more pairs."""
    found: dict[tuple[str, str], list[Result]] = {}
    for turn in range(options.rounds):
        for kind in kinds:
            say(f"growth: {kind.name}, round {turn + 1} of {options.rounds}")
            async with serving(kind) as server:
                for count in GROWTH_PAIRS:
                    async with pairs(server, count) as load:
                        result = await load.bounce(1, options.seconds)
                        found.setdefault((kind.name, f"{count:,} pairs"), []).append(result)
    return _rows("growth", found)


async def memory(kinds: Sequence[Kind], say: Say) -> dict[str, int]:
    """Bytes of resident memory per connection in a room. Skips servers without /proc."""
    found = {}
    for kind in kinds:
        say(f"memory: {kind.name}")
        # Do not count what the first connection loads.
        async with serving(kind) as server, pairs(server, 1):
            before = resident_bytes(server.watched.servers)
            async with pairs(server, IDLE_PAIRS):
                after = resident_bytes(server.watched.servers)
        if before is not None and after is not None:
            found[kind.name] = (after - before) // (2 * IDLE_PAIRS)
    return found


def _rows(part: str, found: dict[tuple[str, str], list[Result]]) -> list[Row]:
    return [
        Row(part, server, scenario, len(results), _median(results))
        for (server, scenario), results in found.items()
    ]


def _median(results: Sequence[Result]) -> Result:
    """The median of each figure over the rounds."""
    return Result(
        **{field.name: _middle([getattr(each, field.name) for each in results]) for field in fields(Result)}
    )


def _middle(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return median(known) if known else None

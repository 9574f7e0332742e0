"""Plays seeds: `python -m tests.simulation --seed 7 --verbose`, or many with `--first 1 --count 300`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Result, play
from tests.simulation.trace import say

REPLAY = ".venv/bin/python -m tests.simulation --seed {seed} --verbose"
NEW_SEEDS = 10**9


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what was asked for; 1 when a seed failed."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, verbose=options.verbose)
    first = secrets.randbelow(NEW_SEEDS) if options.new else options.first
    seeds = range(first, first + options.count)
    say(f"seeds {seeds.start} to {seeds.stop - 1}")
    started = time.monotonic()
    failed = 0
    for result in _played(seeds, options.processes):
        if result.violations:
            failed += 1
            _report(result)
    seconds = time.monotonic() - started
    say(f"{len(seeds)} seeds, {failed} failed, {len(seeds) / seconds:.1f} a second")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one")
    parser.add_argument("--verbose", action="store_true", help="print the timeline")
    parser.add_argument("--first", type=int, default=1, help="the first of many (1)")
    parser.add_argument("--new", action="store_true", help="begin at a seed that is drawn")
    parser.add_argument("--count", type=int, default=100, help="how many (100)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="how many play at a time (one a core)"
    )
    return parser


def _one(seed: int, *, verbose: bool) -> int:
    result = play(seed, verbose=verbose)
    if result.violations:
        _report(result)
    say(f"seed {seed}: trace {result.digest}, {result.steps} steps")
    return 1 if result.violations else 0


def _played(seeds: Iterable[int], processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(play, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(play, seeds)


def _report(result: Result) -> None:
    say(f"seed {result.seed} failed:")
    for violation in result.violations[:8]:
        say(f"  {violation}")
    say(f"  replay it: {REPLAY.format(seed=result.seed)}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"  # the order of sets is a part of what a seed decides
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())

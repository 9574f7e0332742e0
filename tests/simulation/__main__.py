"""Plays seeds: `python -m tests.simulation --seed 7 --verbose`, or many with `--first 0 --count 300`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.simulation.run import Result, play
from tests.simulation.trace import say

REPLAY = "python -m tests.simulation --seed {seed} --verbose"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what was asked for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one")
    parser.add_argument("--verbose", action="store_true", help="print the timeline")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args(arguments)
    seeds = (
        [options.seed] if options.seed is not None else range(options.first, options.first + options.count)
    )
    started = time.monotonic()
    failed = 0
    for seed in seeds:
        result = play(seed, verbose=options.verbose)
        if result.violations:
            failed += 1
            _report(result)
        if options.seed is not None:
            say(f"seed {seed}: trace {result.digest}, {result.steps} steps")
    seconds = time.monotonic() - started
    say(f"{len(seeds)} seeds, {failed} failed, {len(seeds) / seconds:.1f} a second")
    return 1 if failed else 0


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

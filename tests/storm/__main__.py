"""`make storm`: thousands of clients whose node dies, and other crowds.

`python -m tests.storm --clients 6000 --scenario node-death` is what `make storm ARGS="…"` calls.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

import uvloop

from tests.storm.connection import Patience
from tests.storm.scenarios import SCENARIOS, enter, stay, strike
from tests.storm.stage import Size, TooFewFiles, stage


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument(
        "--scenario", choices=SCENARIOS, default="node-death", help="what happens (node-death)"
    )
    parser.add_argument("--clients", type=int, default=3000, help="how many, two to a call (3,000)")
    parser.add_argument("--nodes", type=int, default=2, help="signal nodes (2)")
    parser.add_argument("--runs", type=int, default=1, help="how often, each on a cluster of its own (1)")
    parser.add_argument("--seed", type=int, help="of the clients' waits")
    parser.add_argument("--one-address", action="store_true", help="all come from one IP address")
    parser.add_argument("--old-clients", action="store_true", help="clients that do not know `queued`")
    return parser


async def _play(options: argparse.Namespace) -> None:
    scenario = SCENARIOS[options.scenario]
    for run in range(1, options.runs + 1):
        seed = random.randrange(2**32) if options.seed is None else options.seed
        patience = Patience(knows_queued=not options.old_clients)
        size = Size(options.clients, options.nodes, seed, options.one_address, patience)
        _say(f"run {run} of {options.runs}: {options.scenario}, {size.clients} clients, --seed {seed}")
        async with stage(size, **scenario.environ) as ready:
            if not scenario.from_nothing:
                _say(str(await enter(ready, scenario)))
            _say(str(await stay(ready)))
            _say(str(await strike(ready, scenario)))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Play what was asked for."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_play(_parser().parse_args()))
    except TooFewFiles as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.relay_profile`: where a node spends its time while it relays.

cProfile makes small Python functions look more expensive than they are: trust the order, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import pstats
import tempfile
from pathlib import Path

import uvloop

from bench import servers
from bench.pairs import pairs
from bench.runs import serving


async def _profile(nodes: int, count: int, in_flight: int, seconds: float, file: Path) -> int:
    async with serving(servers.keepline(nodes, profile=file)) as server, pairs(server, count) as load:
        return (await load.bounce(in_flight, seconds)).messages


def main() -> None:
    """Run a node under cProfile, load it, print the top of its profile."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_profile", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 2), help="2: across nodes (1)")
    parser.add_argument("--pairs", type=int, default=50, help="pairs of clients (50)")
    parser.add_argument("--in-flight", type=int, default=1, help="messages under way in each pair (1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the load (5)")
    parser.add_argument("--top", type=int, default=40, help="lines to print (40)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keepline-profile-") as folder:
        file = Path(folder) / "node.prof"
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            work = _profile(options.nodes, options.pairs, options.in_flight, options.seconds, file)
            print(f"{runner.run(work):,} messages")
        pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(options.top)


if __name__ == "__main__":
    main()

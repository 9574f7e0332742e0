"""`python -m bench`: throughput, latency, CPU time and memory of relays, ours and others.

`python -m bench persister` measures how fast events become rows, and `python -m bench joins` how fast clients log in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from bench import joins, node_peers, persister, report, runs, servers
from bench.processes import ProcessError
from bench.runs import Options
from bench.websocket import WebSocketError
from keepline.cli.base.errors import CommandError

ALONE = {"persister": persister, "joins": joins}
PARTS = ("same", "cross", "growth", "memory")


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=50, help="pairs of clients that signal (50)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median counts (3)")
    parser.add_argument(
        "--rate", type=float, default=2_000, help="messages a second of the paced load (2,000)"
    )
    parser.add_argument("--parts", type=_parts, default=PARTS, help=f"which of {','.join(PARTS)} (all)")
    parser.add_argument("--servers", default="", help="only these, such as keepline,websockets/uvloop (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args(words)


def _parts(words: str) -> list[str]:
    parts = words.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(PARTS)}")
    return parts


async def _run(arguments: argparse.Namespace, console: Console) -> None:
    options = Options(arguments.pairs, arguments.seconds, arguments.rounds, arguments.rate)
    about = report.machine()
    single, double = _kinds(arguments.servers, console)
    parts = arguments.parts
    rows: list[runs.Row] = []
    memory: dict[str, int] = {}
    if "same" in parts:
        rows += await runs.relay("same node", single, options, console.log)
    if "cross" in parts:
        rows += await runs.relay("across two nodes", double, options, console.log)
    compared = [kind for kind in single if kind.name != "floor"]
    if "growth" in parts:
        rows += await runs.growth(compared, options, console.log)
    if "memory" in parts:
        memory = await runs.memory(compared, console.log)
    report.show(console, rows)
    if memory:
        report.show_memory(console, memory)
    if arguments.json is not None:
        figures = report.as_json(about, rows, memory)
        arguments.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _kinds(chosen: str, console: Console) -> tuple[list[servers.Kind], list[servers.Kind]]:
    """The servers with one process, and the clusters of two."""
    single = [
        servers.floor(),
        servers.keepline(1),
        servers.websockets("asyncio"),
        servers.websockets("uvloop"),
    ]
    double = [servers.keepline(2)]
    try:
        installed = node_peers.install()
    except node_peers.Absent as reason:
        console.print(f"SKIPPED socket.io: {reason}")
    else:
        single.append(servers.socket_io(1, installed))
        double.append(servers.socket_io(2, installed))
    wanted = chosen.split(",") if chosen else None
    return (
        [kind for kind in single if wanted is None or kind.name in wanted],
        [kind for kind in double if wanted is None or kind.name in wanted],
    )


def main() -> None:
    """Measure and print."""
    words = sys.argv[1:]
    alone = ALONE.get(words[0]) if words else None
    arguments = _arguments(words) if alone is None else alone.arguments_of(words[1:])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # child processes inherit it
    console = Console(width=110)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run((_run if alone is None else alone.run)(arguments, console))
    except (CommandError, ProcessError, WebSocketError, OSError, TimeoutError) as error:
        sys.exit(f"bench: {str(error) or type(error).__name__}")


if __name__ == "__main__":
    main()

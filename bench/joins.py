"""`python -m bench joins`: how many clients per second log in, and what each costs the server.

A login is a TCP connection, the handshake, a hello and a join, each answered. A fixed number of clients log in at a
time; each that has finished lets the next one start. Keepline's clients then lose their connections, all at once, and
return with their resume secrets. Servers take turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import node_peers, report, servers
from bench.dialects import Keepline, Seat
from bench.processes import cpu_seconds
from bench.runs import serving
from bench.servers import Kind, Server
from bench.websocket import WebSocket

PEER = "ws"
"""The reference for the ratios."""

WARM_UP_CLIENTS = 200
"""Number of clients that log in before the measurement, because the first ones load what the others reuse."""

FORGOTTEN_SECONDS = 1.0
"""How long a server has to notice that its clients are gone, before they return."""


@dataclass(frozen=True, slots=True)
class Joins:
    """One measurement. CPU time in ms per client, also of Redis if the server uses it."""

    per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    redis_cpu_ms: float
    generator_cpu_ms: float


Found = dict[tuple[str, str], list[Joins]]


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench joins", description=__doc__)
    parser.add_argument("--clients", type=int, default=2_000, help="how many come in, two to a room (2,000)")
    parser.add_argument("--at-once", type=int, default=50, help="how many at a time (50)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median counts (3)")
    parser.add_argument("--servers", default="", help="only these, such as keepline,ws (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args(words)


async def run(arguments: argparse.Namespace, console: Console) -> None:
    """Measure and print."""
    about = report.machine()
    found: Found = {}
    for turn in range(arguments.rounds):
        for kind in _kinds(arguments.servers, console):
            console.log(f"joins: {kind.name}, round {turn + 1} of {arguments.rounds}")
            async with serving(kind) as server:
                await _measure(kind.name, server, arguments, found)
    middle = {name: _median(results) for name, results in found.items()}
    console.print(_table(middle))
    if arguments.json is not None:
        rows = [{"server": name, "what": what, **asdict(joins)} for (name, what), joins in middle.items()]
        arguments.json.write_text(json.dumps({"machine": about, "results": rows}, indent=2) + "\n")


def _kinds(chosen: str, console: Console) -> list[Kind]:
    kinds = [servers.keepline(1), servers.websockets("asyncio"), servers.websockets("uvloop")]
    try:
        installed = node_peers.install()
    except node_peers.Absent as reason:
        console.print(f"SKIPPED ws and socket.io: {reason}")
    else:
        kinds += [servers.ws(installed), servers.socket_io(1, installed)]
    wanted = chosen.split(",") if chosen else None
    return [kind for kind in kinds if wanted is None or kind.name in wanted]


async def _measure(name: str, server: Server, arguments: argparse.Namespace, found: Found) -> None:
    async with server.new_rooms((WARM_UP_CLIENTS + arguments.clients) // 2) as rooms:
        seats = [seat for room in rooms for seat in room]
        first, seats = seats[:WARM_UP_CLIENTS], seats[WARM_UP_CLIENTS:]
        entered: dict[Seat, WebSocket] = {}

        async def enter(seat: Seat) -> None:
            websocket = await WebSocket.open(
                server.ports[0], server.dialect.path(seat), server.dialect.subprotocol
            )
            await server.dialect.enter(websocket, seat)
            entered[seat] = websocket

        await _all(first, enter, arguments.at_once, server)
        joins = await _all(seats, enter, arguments.at_once, server)
        found.setdefault((name, "join"), []).append(joins)
        if isinstance(server.dialect, Keepline):
            for seat in seats:
                entered[seat].transport.abort()
            await asyncio.sleep(FORGOTTEN_SECONDS)
            resumes = await _all(seats, enter, arguments.at_once, server)
            found.setdefault((name, "resume"), []).append(resumes)
        for websocket in entered.values():
            websocket.transport.abort()


async def _all(
    seats: Sequence[Seat], enter: Callable[[Seat], Awaitable[None]], at_once: int, server: Server
) -> Joins:
    waiting, waits = list(reversed(seats)), []

    async def work() -> None:
        while waiting:
            began = time.perf_counter()
            await enter(waiting.pop())
            waits.append(time.perf_counter() - began)

    before, began = _cpu(server), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    seconds, after = time.perf_counter() - began, _cpu(server)
    cpu = [1_000 * (now - then) / len(waits) for now, then in zip(after, before, strict=True)]
    waits.sort()
    p50, p99 = (1_000 * waits[len(waits) * percent // 100] for percent in (50, 99))
    return Joins(len(waits) / seconds, p50, p99, *cpu)


def _cpu(server: Server) -> tuple[float, float, float]:
    watched = server.watched
    return cpu_seconds(watched.servers) or 0.0, cpu_seconds(watched.redis) or 0.0, time.process_time()


def _median(results: Sequence[Joins]) -> Joins:
    return Joins(*(median(getattr(each, field.name) for each in results) for field in fields(Joins)))


def _table(found: dict[tuple[str, str], Joins]) -> Table:
    table = Table(title="clients that log in", title_justify="left")
    for name in ("server", "what"):
        table.add_column(name)
    for name in (
        "a second",
        f"of {PEER}",
        "CPU ms",
        f"of {PEER}",
        "of Redis",
        "p50 ms",
        "p99 ms",
        "generator ms",
    ):
        table.add_column(name, justify="right")
    peer = found.get((PEER, "join"))
    for (name, what), joins in found.items():
        table.add_row(
            name,
            what,
            f"{joins.per_second:,.0f}",
            _ratio(joins.per_second, peer and peer.per_second),
            f"{joins.server_cpu_ms:.2f}",
            _ratio(joins.server_cpu_ms, peer and peer.server_cpu_ms),
            f"{joins.redis_cpu_ms:.2f}",
            f"{joins.p50_ms:.1f}",
            f"{joins.p99_ms:.1f}",
            f"{joins.generator_cpu_ms:.2f}",
        )
    return table


def _ratio(value: float, base: Any) -> str:
    return f"{value / base:.2f}" if base else "-"

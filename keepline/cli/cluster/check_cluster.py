"""`keepline check`: runs test calls on a live cluster and checks that delivery is as promised.

Break anything you like while it runs. The clients record a history of what they sent and received, which can be saved
to a file. The checker reads only that.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from rich.console import Group, RenderableType
from rich.table import Table

from keepline.cli.base.errors import CommandError
from keepline.cli.cluster import bench
from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach
from keepline.cli.cluster.bench import Mint, Say, distribution, place_of
from keepline.cli.cluster.history import Entry, History
from keepline.cli.cluster.history_checker import Verdict
from keepline.cli.cluster.history_checker import check as check_history
from keepline.cli.cluster.writers import Lines, Rates, Writers
from keepline.client import DeliveryCounts, KeeplineError

_SETTLED_SECONDS = 60.0
_MESSAGES = "SELECT messages FROM active_rooms WHERE room_id = $1::uuid"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many calls to run, how much each member sends, and for how long."""

    calls: int
    rates: Rates
    seconds: float


async def check(
    reach: Reach,
    plan: Plan,
    urls: Sequence[str],
    mint: Mint,
    *,
    users: bool,
    say: Say,
    file: TextIO | None,
) -> dict[str, Any]:
    """Run calls, check their history, and return the report as JSON types. Raises UsageError or CommandError."""
    bench.check_users(reach, users=users)
    node, found = await bench.serving(reach)
    places = list(urls) or [bench.clients_url(each) for each in found]
    people = [(uuid.uuid4(), uuid.uuid4()) for _ in range(plan.calls)]
    history = History(time.monotonic, file)
    writers = Writers(history, plan.rates, random.randrange(2**32))  # noqa: S311 - for pauses
    async with AsyncExitStack() as stack:
        rooms: list[str] = []
        if users:
            await stack.enter_async_context(bench.made_up_users(reach, people, rooms, say))
        stack.push_async_callback(bench.end_rooms, reach, node, rooms)
        say(f"opening {plan.calls} calls through {', '.join(places)}")
        for number, pair in enumerate(people):
            rooms.append(await bench.opened(reach, node, pair))
            for side, user in enumerate(pair):
                first = place_of(places, number, side)
                addresses = [first, *(place for place in places if place != first)]
                await _join(writers, stack, rooms[-1], user, addresses, mint(user))
        writers.begin()
        stack.push_async_callback(writers.close)
        say(f"writing histories for {plan.seconds:g} s")
        await asyncio.sleep(plan.seconds)
        settled = await writers.settle(_SETTLED_SECONDS)
        await _read(reach, writers, rooms, say)
        await writers.close()
        return report(check_history(history.entries), writers.counts(), settled=settled)


def check_file(entries: Iterable[Entry]) -> dict[str, Any]:
    """Check a saved history."""
    return report(check_history(entries), None, settled=True)


def report(verdict: Verdict, counts: DeliveryCounts | None, *, settled: bool) -> dict[str, Any]:
    """The report, as JSON types."""
    problems = list(verdict.problems)
    if not settled:
        problems.append(f"not everything was answered within {_SETTLED_SECONDS:g} s of the last signal")
    return {
        "problems": problems,
        "signals": verdict.signals,
        "acknowledged_signals": verdict.acknowledged_signals,
        "lines": verdict.lines,
        "acknowledged_lines": verdict.acknowledged_lines,
        "unknown": verdict.unknown,
        "recovery_ms": distribution([ms / 1_000 for ms in verdict.recoveries_ms]),
        "delivery": None if counts is None else asdict(counts),
    }


def render(found: dict[str, Any]) -> RenderableType:
    """The report as a table."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("signals", f"{found['acknowledged_signals']} of {found['signals']} acknowledged")
    table.add_row("lines of chat", f"{found['acknowledged_lines']} of {found['lines']} acknowledged")
    table.add_row("outcome unknown", str(found["unknown"]))
    if (recovery := found["recovery_ms"]) is not None:
        times = ", ".join(f"{name} {recovery[name]:.0f}" for name in ("p50", "p99", "max"))
        table.add_row("back after a lost connection, ms", f"{times} ({recovery['count']:.0f} times)")
    for name, value in (found["delivery"] or {}).items():
        table.add_row(name.replace("_", " "), str(value))
    problems = [f"[bold red]{problem}[/]" for problem in found["problems"]]
    return Group(table, *(problems or ["[bold]no promise broken[/]"]))


async def _join(
    writers: Writers, stack: AsyncExitStack, room: str, user: uuid.UUID, urls: Sequence[str], token: str
) -> None:
    try:
        await writers.join(stack, room, user, urls, token)
    except KeeplineError as error:
        raise CommandError(f"{', '.join(urls)}: {error}") from error


async def _read(reach: Reach, writers: Writers, rooms: Sequence[str], say: Say) -> None:
    """Read every room's chat from every node, and from Postgres once it has caught up."""
    _, nodes = await bench.serving(reach)
    places = {node.name: _lines_of(reach, node) for node in nodes}
    if reach.pool is not None:
        places["postgres"] = lambda room: _stored_lines(reach, room)
        say("waiting for Postgres to have the chat")

        async def same() -> bool:
            for room in rooms:
                views = [[line["seq"] for line in await read(room)] for read in places.values()]
                if any(view != views[0] for view in views):
                    return False
            return True

        await bench.until(same, _SETTLED_SECONDS)
    await writers.read_chats(places)


def _lines_of(reach: Reach, node: ListedNode) -> Callable[[str], Awaitable[Lines]]:
    async def lines(room: str) -> Lines:
        try:
            messages: Lines = (await reach.ask(node, f"/v1/rooms/{room}"))["messages"]
        except NodeSilent as silence:
            raise CommandError(f"{node.name}: {silence}") from None
        return messages

    return lines


async def _stored_lines(reach: Reach, room: str) -> Lines:
    lines: Lines | None = await bench.in_postgres(reach, _MESSAGES, room)
    return lines or []

"""The commands for a running cluster: `status`, `rooms`, `trace`, `doctor`, `drain`, `bench`.

Each imports its dependencies when it runs: see `keepline.cli.main`.
"""

import json
import os
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from keepline.cli.base.errors import FAILED, CommandError
from keepline.room.record import ChatMode, Status

if TYPE_CHECKING:
    from keepline.cli.cluster.bench import Load
    from keepline.cli.cluster.doctor import Outcome
    from keepline.cli.cluster.findings import Finding
    from keepline.cli.cluster.rooms import Filter, Listing
    from keepline.cli.cluster.trace import Timeline

T = TypeVar("T")

commands = typer.Typer()

WATCH_SECONDS = 2.0
TO_DRAIN_SECONDS = 30.0
TOKEN_SECONDS = 600
"""How much longer than the measurement its tokens are valid."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the asynchronous part of a command."""
    import asyncio

    return asyncio.run(work)


@commands.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show each node with its load, the rooms, how far Postgres is behind, and all problems.

    Exits with 1 if Redis is away or no node is ready.
    """
    healthy = run(_watch(as_json) if watch else _status(as_json))
    if not healthy:
        raise typer.Exit(FAILED)


async def _status(as_json: bool) -> bool:
    from keepline.cli.cluster import status as status_of
    from keepline.cli.cluster.access import reach
    from keepline.cli.reports.screen import console

    async with reach(os.environ) as cluster:
        found = await status_of.status(cluster)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        console().print(status_of.render(found), soft_wrap=True)
    return any(node["state"] in ("ready", "degraded") for node in found["nodes"])


async def _watch(as_json: bool) -> bool:
    import asyncio

    from rich.live import Live

    from keepline.cli.cluster import status as status_of
    from keepline.cli.cluster.access import reach
    from keepline.cli.reports.screen import console

    async with reach(os.environ) as cluster:
        if as_json:
            while True:
                typer.echo(json.dumps(await status_of.status(cluster)))
                await asyncio.sleep(WATCH_SECONDS)
        with Live(console=console(), auto_refresh=False) as live:
            while True:
                live.update(status_of.render(await status_of.status(cluster)), refresh=True)
                await asyncio.sleep(WATCH_SECONDS)


@commands.command()
def drain(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="The node's name, as `keepline status` shows it.")
    ],
    undo: Annotated[bool, typer.Option("--undo", help="Undo the drain: take clients again.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, max=3600, help="The drain window in seconds; default: the node's own."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the node is empty, and show progress.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="How many seconds to wait; default: the window plus 30 s.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Move a node's clients to other nodes. The process keeps running, is not ready, and accepts no new clients."""
    from keepline.cli.reports.screen import count

    report = run(_undo(node) if undo else _drain(node, seconds, wait, timeout))
    if as_json:
        typer.echo(json.dumps(report))
    elif report["state"] == "draining":
        typer.echo(f"{node} is draining {count(report['sessions'], 'session')}; --wait shows how it goes")
    else:
        typer.echo(f"{node} is {report['state']}")


async def _undo(name: str) -> dict[str, Any]:
    from keepline.cli.cluster import drains
    from keepline.cli.cluster.access import reach

    async with reach(os.environ) as cluster:
        return await drains.undo(cluster, await cluster.node(name))


async def _drain(name: str, seconds: float | None, wait: bool, timeout: float | None) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from keepline.cli.cluster import drains
    from keepline.cli.cluster.access import reach

    async with reach(os.environ) as cluster:
        node = await cluster.node(name)
        report = await drains.begin(cluster, node, seconds)
        if not wait:
            return report
        limit = report["remaining_ms"] / 1_000 + TO_DRAIN_SECONDS if timeout is None else timeout
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]} sessions left"),
        )
        stderr = Console(stderr=True)
        with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
            total = report["sessions"]
            bar = progress.add_task(f"draining {name}", total=total or 1, left=total)

            def show(now: dict[str, Any]) -> None:
                left = now["sessions"]
                progress.update(bar, completed=max(0, total - left) if total else 1, left=left)

            return await drains.until_drained(cluster, node, limit, show)


@commands.command()
def rooms(
    room: Annotated[
        uuid.UUID | None,
        typer.Argument(metavar="[ROOM]", help="Show one room as Redis, Postgres and each node have it."),
    ] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only rooms with this status; default: all that have not ended.")
    ] = None,
    mode: Annotated[ChatMode | None, typer.Option(help="Only rooms of this mode.")] = None,
    user: Annotated[uuid.UUID | None, typer.Option(help="Only rooms of this user.")] = None,
    node: Annotated[str | None, typer.Option(help="Only rooms with a side on this node.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Only rooms that started at least this many seconds ago.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the rooms that changed last, or show one as Redis, Postgres and each node have it."""
    from keepline.cli.cluster.rooms import Filter
    from keepline.cli.reports import room_tables
    from keepline.cli.reports.screen import console

    if room is not None:
        run(_room(str(room), as_json))
        return
    wanted = Filter(
        None if status is None else status.value,
        None if mode is None else mode.value,
        None if user is None else str(user),
        node,
        older_than,
    )
    listing = run(_rooms(wanted, limit))
    if as_json:
        typer.echo(json.dumps(room_tables.as_json(listing)))
    else:
        screen = console()
        screen.print(room_tables.listing(listing, screen.width), soft_wrap=True)


async def _rooms(wanted: "Filter", limit: int) -> "Listing":
    from keepline.cli.cluster.access import reach
    from keepline.cli.cluster.rooms import list_rooms

    async with reach(os.environ) as cluster:
        with looking_at("rooms") as seen:
            return await list_rooms(cluster, wanted, limit, seen)


async def _room(room_id: str, as_json: bool) -> None:
    from keepline.cli.cluster.access import reach
    from keepline.cli.cluster.rooms import views_of
    from keepline.cli.reports import room_tables
    from keepline.cli.reports.screen import console

    async with reach(os.environ) as cluster:
        views = await views_of(cluster, room_id)
    if as_json:
        typer.echo(json.dumps(room_tables.views_as_json(views)))
    if all(view.fields is None for view in views):
        silent = "".join(f"; {view.place}: {view.problem}" for view in views if view.problem)
        raise CommandError(f"no such room in Redis, in Postgres or on any node: {room_id}{silent}")
    if not as_json:
        screen = console()
        screen.print(room_tables.side_by_side(views, screen.width), soft_wrap=True)


@commands.command()
def trace(
    room: Annotated[uuid.UUID, typer.Argument(metavar="ROOM", help="The room's id.")],
    as_json: JsonOption = False,
) -> None:
    """Show the history of a call over all nodes, in order."""
    from keepline.cli.reports import trace_table
    from keepline.cli.reports.screen import console

    found = run(_trace(str(room)))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    elif found.lines:
        screen = console()
        screen.print(trace_table.render(found, screen.width), soft_wrap=True)
    if not found.lines:
        raise CommandError(
            f"nothing is known of room {room}: it never existed, or it ended more than an hour ago"
        )


async def _trace(room_id: str) -> "Timeline":
    from keepline.cli.cluster.access import reach
    from keepline.cli.cluster.trace import timeline

    async with reach(os.environ) as cluster:
        return await timeline(cluster, room_id)


@commands.command()
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Let nodes repair what they can, then check again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find inconsistencies between nodes, Redis and Postgres, and settings that put rooms at risk.

    The cluster keeps running meanwhile. Exits with 1 if something is wrong, or with --fix if something still is.
    """
    from keepline.cli.reports import finding_table
    from keepline.cli.reports.screen import console

    found, outcomes, left = run(_doctor(fix))
    if as_json:
        typer.echo(json.dumps(finding_table.as_json(found, outcomes, left)))
    else:
        console().print(finding_table.render(found, outcomes, left), soft_wrap=True)
    if left:
        raise typer.Exit(FAILED)


async def _doctor(fix: bool) -> tuple[list["Finding"], list["Outcome"], list["Finding"]]:
    """The problems found, the results of their repairs, and the problems that remain."""
    import asyncio

    from keepline.cli.cluster import doctor as doctor_of
    from keepline.cli.cluster.access import reach

    async with reach(os.environ) as cluster:
        with looking_at("rooms") as seen:
            found = await doctor_of.examine(cluster, seen)
        if not fix or not found:
            return found, [], found
        with looking_at("repairs") as seen:
            outcomes = await doctor_of.fix(cluster, found, seen)
        await asyncio.sleep(doctor_of.SETTLE_SECONDS)
        with looking_at("rooms") as seen:
            return found, outcomes, await doctor_of.examine(cluster, seen)


@contextmanager
def looking_at(what: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal if it takes a while."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.completed:.0f} {task.description} looked at")
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda seen: progress.update(task, completed=seen)


@commands.command()
def bench(
    calls: Annotated[
        int, typer.Option(min=1, max=5_000, help="Number of calls; each has two connections.")
    ] = 20,
    rate: Annotated[float, typer.Option(min=1, help="Signals per second, over all calls.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, max=3_600, help="For how long.")] = 10,
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="Where clients connect, such as wss://signal.example.org/v1; repeatable. Default: each node."
        ),
    ] = None,
    users: Annotated[
        bool, typer.Option(help="Insert the calls' users into Postgres first, and remove them at the end.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a running cluster with test calls: how long do signals take from client to client?

    Exits with 1 if signals were lost.
    """
    from keepline.cli.cluster import bench as bench_of
    from keepline.cli.reports.screen import console

    found = run(_bench(bench_of.Load(calls, rate, seconds), url or [], users))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        console().print(bench_of.render(found), soft_wrap=True)
    if found["lost"]:
        raise typer.Exit(FAILED)


async def _bench(load: "Load", urls: list[str], users: bool) -> dict[str, Any]:
    import time

    from keepline.cli.base import running
    from keepline.cli.base.credentials import auth_secret
    from keepline.cli.base.tokens import mint
    from keepline.cli.cluster import bench as bench_of
    from keepline.cli.cluster.access import DATA, reach

    environ = running.surroundings(os.environ, DATA)
    secret, ttl = auth_secret(environ, DATA), round(load.seconds) + TOKEN_SECONDS

    def token(user: uuid.UUID) -> str:
        return mint(user, secret, now=time.time(), ttl=ttl, environ=environ)

    async with reach(environ) as cluster:
        return await bench_of.bench(cluster, load, urls, token, users=users, say=_say)


def _say(text: str) -> None:
    typer.echo(text, err=True)

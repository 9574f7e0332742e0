"""The commands that look after a running cluster: `status`, `drain`, …"""

import asyncio
import json
import os
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn

from keepline.cli import drains
from keepline.cli import status as status_of
from keepline.cli.errors import FAILED
from keepline.cli.reach import reach

commands = typer.Typer()

WATCH_SECONDS = 2.0
TO_DRAIN_SECONDS = 30.0

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console() -> Console:
    """Where results go."""
    return Console(highlight=False)


@commands.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on every two seconds until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show each node with its load, the rooms, how far Postgres is behind, and what is wrong.

    Exit code 1 when Redis cannot be asked or no node is ready.
    """
    healthy = asyncio.run(_watch(as_json) if watch else _status(as_json))
    if not healthy:
        raise typer.Exit(FAILED)


async def _status(as_json: bool) -> bool:
    async with reach(os.environ) as cluster:
        found = await status_of.status(cluster)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        console().print(status_of.render(found), soft_wrap=True)
    return any(node["state"] in ("ready", "degraded") for node in found["nodes"])


async def _watch(as_json: bool) -> bool:
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
    node: Annotated[str, typer.Argument(metavar="NODE", help="As `keepline status` shows it.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let it take clients again.")] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0, max=3600, help="The drain window; else the node's own.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has no clients, showing progress.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="How many seconds to wait; else the window and 30 s.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a node's clients to the others: it goes on living, not ready, and takes no new ones."""
    report = asyncio.run(_undo(node) if undo else _drain(node, seconds, wait, timeout))
    if as_json:
        typer.echo(json.dumps(report))
    elif report["state"] == "draining":
        typer.echo(f"{node} is draining {report['sessions']} sessions; --wait shows how it goes")
    else:
        typer.echo(f"{node} is {report['state']}")


async def _undo(name: str) -> dict[str, Any]:
    async with reach(os.environ) as cluster:
        return await drains.undo(cluster, await cluster.node(name))


async def _drain(name: str, seconds: float | None, wait: bool, timeout: float | None) -> dict[str, Any]:
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
        with Progress(*columns, console=Console(stderr=True)) as progress:
            total = report["sessions"]
            bar = progress.add_task(f"draining {name}", total=total or 1, left=total)

            def show(now: dict[str, Any]) -> None:
                left = now["sessions"]
                progress.update(bar, completed=max(0, total - left) if total else 1, left=left)

            return await drains.until_drained(cluster, node, limit, show)

"""`keepline check`: is delivery as promised?

Imports its dependencies when it runs: see `keepline.cli.main`.
"""

import json
import os
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepline.cli.base.errors import FAILED, UsageError

if TYPE_CHECKING:
    from keepline.cli.cluster.check_cluster import Plan

commands = typer.Typer()

TOKEN_SECONDS = 600
"""How long tokens stay valid after the run."""


@commands.command()
def check(
    calls: Annotated[
        int, typer.Option(min=1, max=5_000, help="Number of calls; each has two connections.")
    ] = 20,
    signals: Annotated[float, typer.Option(min=0.1, max=20, help="Signals per second of each member.")] = 5,
    lines: Annotated[
        float, typer.Option(min=0.01, max=5, help="Chat messages per second of each member.")
    ] = 0.5,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="For how long.")] = 60,
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="Where clients connect, such as wss://signal.example.org/v1; repeatable. Default: each node."
        ),
    ] = None,
    users: Annotated[
        bool, typer.Option(help="Insert the calls' users into Postgres first, and remove them at the end.")
    ] = True,
    history: Annotated[
        Path | None, typer.Option(help="Keep the history in this file, one JSON object per line.")
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option(help="Check this history instead, without a cluster.", exists=True, dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check delivery on a running cluster: test calls write histories while you break what you like.

    Exit code 1 if a promise was broken: a signal or chat message was lost, duplicated or out of order, or a room ended
    on its own.
    """
    import asyncio

    from keepline.cli.cluster import check_cluster
    from keepline.cli.cluster.writers import Rates
    from keepline.cli.reports.screen import console

    if read is not None:
        found = _read(read)
    else:
        plan = check_cluster.Plan(calls, Rates(signals, lines), seconds)
        found = asyncio.run(_check(plan, url or [], users=users, history=history))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        console().print(check_cluster.render(found), soft_wrap=True)
    if found["problems"]:
        raise typer.Exit(FAILED)


async def _check(plan: "Plan", urls: list[str], *, users: bool, history: Path | None) -> dict[str, Any]:
    import time

    from keepline.cli.base import running
    from keepline.cli.base.credentials import auth_secret
    from keepline.cli.base.tokens import mint
    from keepline.cli.cluster import check_cluster
    from keepline.cli.cluster.access import DATA, reach

    environ = running.surroundings(os.environ, DATA)
    secret, ttl = auth_secret(environ, DATA), round(plan.seconds) + TOKEN_SECONDS

    def token(user: uuid.UUID) -> str:
        return mint(user, secret, now=time.time(), ttl=ttl, environ=environ)

    with ExitStack() as stack:
        file = None if history is None else stack.enter_context(history.open("w"))
        async with reach(environ) as cluster:
            return await check_cluster.check(cluster, plan, urls, token, users=users, say=_say, file=file)


def _read(path: Path) -> dict[str, Any]:
    from keepline.cli.cluster import check_cluster
    from keepline.cli.cluster.history import read

    try:
        with path.open() as file:
            return check_cluster.check_file(read(file))
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"{path} is not a history: {error}") from None


def _say(text: str) -> None:
    typer.echo(text, err=True)

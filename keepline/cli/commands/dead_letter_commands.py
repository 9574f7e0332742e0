"""`keepline dead-letters`: list, show and replay events that could not be written.

Each command imports its dependencies when it runs: see `keepline.cli.main`.
"""

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepline.cli.base.errors import CommandError, UsageError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from keepline.cli.cluster.dead_letters import About, Letter, LetterId

commands = typer.Typer(
    name="dead-letters",
    help="List events that could not be written to Postgres, and replay them once the cause is fixed.\n\n"
    "They are stored in the Redis of REDIS_URL.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest letters with their reasons."""
    import asyncio

    from keepline.cli.reports.screen import console, count, fits

    total, letters = asyncio.run(_newest(limit))
    if as_json:
        typer.echo(json.dumps({"total": total, "letters": [_summary(letter) for letter in letters]}))
        return
    screen = console()
    if letters:
        table = _table(letters)
        screen.print(table if fits(table, screen.width) else _in_lines(letters), soft_wrap=True)
    screen.print(count(total, "dead letter") + (f", the newest {limit} shown" if total > limit else ""))


@commands.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The letter's id, as `list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Show one letter with its full event, which may contain chat messages."""
    import asyncio

    from rich.console import Console
    from rich.markup import escape

    from keepline.cli.cluster.dead_letters import LetterId

    found = asyncio.run(_one(LetterId.parse(letter)))
    event = _event(found)
    if as_json:
        typer.echo(json.dumps({**_summary(found), "event": event}))
        return
    console = Console(highlight=False)
    for name, value in _summary(found).items():
        console.print(f"[bold]{name:<10}[/] {escape(str(value))}", soft_wrap=True)
    console.print(escape(event if isinstance(event, str) else json.dumps(event, indent=2)), soft_wrap=True)


@commands.command()
def replay(
    letters: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Ids, as `list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move letters back to the events. Persisters try them again; those that still cannot be written become dead
    letters again.
    """
    import asyncio

    from keepline.cli.cluster.dead_letters import LetterId

    if bool(letters) is everything:
        raise UsageError("name the letters to replay, or use --all")
    count, missing = asyncio.run(_replay([LetterId.parse(text) for text in letters or []]))
    if as_json:
        typer.echo(json.dumps({"replayed": count, "missing": missing}))
    else:
        typer.echo(f"{count} replayed")
    if missing:
        raise CommandError(f"no such dead letter: {', '.join(missing)}")


async def _newest(limit: int) -> tuple[int, list["Letter"]]:
    from keepline.cli.cluster.dead_letters import dead_letters

    async with dead_letters(os.environ) as box:
        return await box.count(), await box.newest(limit)


async def _one(wanted: "LetterId") -> "Letter":
    from keepline.cli.cluster.dead_letters import dead_letters

    async with dead_letters(os.environ) as box:
        found = await box.get(wanted)
    if found is None:
        raise CommandError(f"no such dead letter: {wanted}")
    return found


async def _replay(wanted: list["LetterId"]) -> tuple[int, list[str]]:
    """Replay these letters, or all if none are given; return how many were replayed, and the ids that do not exist."""
    from keepline.cli.cluster.dead_letters import dead_letters

    async with dead_letters(os.environ) as box:
        if not wanted:
            return await box.replay_all(), []
        replayed = await box.replay(wanted)
    return len(replayed), [str(letter) for letter in wanted if letter not in replayed]


def _summary(letter: "Letter") -> dict[str, Any]:
    """A letter without its content; `kind` is null if it is unreadable."""
    about = letter.about()
    return {
        "id": str(letter.id),
        "buried_at": letter.buried_at,
        "reason": letter.reason,
        "entry": letter.entry,
        "kind": None if about is None else about.kind,
        "room": None if about is None else about.room,
        "version": None if about is None else about.version,
    }


def _kind(about: "About | None") -> str:
    if about is None:
        return "unreadable"
    return about.kind if about.version is None else f"{about.kind} v{about.version}"


def _event(letter: "Letter") -> Any:
    """The event as JSON types, or as text if it is not JSON."""
    text = letter.data.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _table(letters: list["Letter"]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("id", "buried at (UTC)", "event", "room", "reason"):
        table.add_column(name, no_wrap=True)
    for letter in letters:
        about = letter.about()
        table.add_row(
            str(letter.id),
            _buried(letter),
            _kind(about),
            "" if about is None or about.room is None else about.room,
            escape(letter.reason),
        )
    return table


def _in_lines(letters: list["Letter"]) -> "Group":
    """The same where a table has no room: three lines each."""
    from rich.console import Group
    from rich.markup import escape

    lines = []
    for letter in letters:
        about = letter.about()
        room = "" if about is None or about.room is None else f" of room {about.room}"
        lines += [
            f"[bold]{letter.id}[/]  {_buried(letter)}",
            f"  {_kind(about)}{room}",
            f"  {escape(letter.reason)}",
        ]
    return Group(*lines)


def _buried(letter: "Letter") -> str:
    return datetime.fromtimestamp(letter.buried_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")

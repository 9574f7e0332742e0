"""Commands for the cluster that `keepline up` runs on this machine.

Each imports its dependencies when it runs: see `keepline.cli.main`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from keepline.cli.base import running
from keepline.cli.base.errors import CommandError

DATA = Path(".keepline")

DataOption = Annotated[Path, typer.Option(help="Folder for the data, secrets and logs of `keepline up`.")]

commands = typer.Typer()


def found(data: Path) -> dict[str, Any]:
    """The cluster that runs on `data`. Raises CommandError if there is none."""
    line = running.read(data)
    if line is None:
        raise CommandError(f"keepline up is not running on {data}: start it, or set its folder with --data")
    return line


@commands.command()
def kill(
    program: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the program: node-1, persister-1, redis or postgres."),
    ],
    data: DataOption = DATA,
) -> None:
    """Kill a program of the cluster that `keepline up` runs here (SIGKILL). `keepline up` restarts it."""
    from keepline.cli.local import killing

    typer.echo(f"{program} (pid {killing.kill(found(data), program)}) killed")


@commands.command("env")
def environment(data: DataOption = DATA) -> None:
    """Print the variables of the cluster that `keepline up` runs here, for a shell: eval "$(keepline env)"."""
    import shlex

    for name, value in running.variables(found(data)).items():
        typer.echo(f"export {name}={shlex.quote(value)}")

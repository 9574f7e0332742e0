"""The `keepline` command.

A command imports its dependencies when it runs. Together the libraries take a second to load, and a command that prints
a token or its help needs none of them. `tests/unit/cli/test_start.py` says what each may load.
"""

import os
import sys
import uuid
from typing import Annotated, Any

import typer

from keepline.cli.base.errors import CommandError, UsageError
from keepline.cli.commands import check_command, dead_letter_commands, local_commands, operator_commands
from keepline.cli.commands.local_commands import DATA, DataOption
from keepline.cli.local.layout import LOOPBACK, Plan
from keepline.ops.secret_files import SecretFileError, read_secret_files

app = typer.Typer(
    name="keepline",
    help="Run and operate a Keepline signaling cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(local_commands.commands)
app.add_typer(operator_commands.commands)
app.add_typer(check_command.commands)
app.add_typer(dead_letter_commands.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"keepline {version('keepline')}")
        raise typer.Exit


@app.callback()
def _command(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run and operate a Keepline signaling cluster."""


@app.command()
def up(
    nodes: Annotated[int, typer.Option(help="Number of signal nodes.")] = 2,
    persisters: Annotated[int, typer.Option(help="Number of persisters.")] = 1,
    port: Annotated[
        int, typer.Option(help="First port; node i takes port + 10·i, the demo page port + 3.")
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(help="Address for clients and the demo page; 0.0.0.0 for access from other machines."),
    ] = LOOPBACK,
    lan: Annotated[
        bool, typer.Option("--lan", help="Serve the demo page over https to phones in this network.")
    ] = False,
    lan_address: Annotated[
        str | None, typer.Option(help="Address of this machine for --lan, if it has several.")
    ] = None,
    data: DataOption = DATA,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one line of JSON with all addresses when everything is ready."),
    ] = False,
) -> None:
    """Run a whole cluster on this machine until Ctrl-C: servers, nodes, persisters and a demo page.

    Also starts Redis and PostgreSQL, unless REDIS_URL and DATABASE_URL are set.
    """
    import asyncio
    import json

    from rich.console import Console
    from rich.markup import escape

    from keepline.cli.local import ports
    from keepline.cli.local.up import run
    from keepline.cli.reports.greeting import show
    from keepline.ops import logs

    address = lan_address or (ports.required_lan_address() if lan else None)
    plan = Plan(nodes=nodes, persisters=persisters, port=port, host=host, lan=address)
    logs.configure(None, "warning")
    progress = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        progress.print(escape(text), style="dim", soft_wrap=True)

    def ready(cluster: dict[str, Any]) -> None:
        if as_json:
            typer.echo(json.dumps(cluster))
        else:
            show(cluster, plan, data)

    asyncio.run(run(plan, data.resolve(), os.environ, say, ready))


@app.command()
def token(
    user: Annotated[uuid.UUID, typer.Option(help="UUID of the user.")],
    ttl: Annotated[int, typer.Option(min=1, help="Lifetime in seconds.")] = 3600,
    data: DataOption = DATA,
) -> None:
    """Print a token for a client's `hello`.

    It is signed with KEEPLINE_AUTH_SECRET, or with the secret of the cluster that `keepline up` created here.
    """
    import time

    from keepline.cli.base.credentials import auth_secret
    from keepline.cli.base.tokens import mint

    typer.echo(mint(user, auth_secret(os.environ, data), now=time.time(), ttl=ttl, environ=os.environ))


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only list pending migrations; exit with 1 if there are any.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only print which tables would be used and made, and what would run."),
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would run.")] = False,
) -> None:
    """Bring the database named by DATABASE_URL to the current schema.

    KEEPLINE_USERS_TABLE and KEEPLINE_USERS_COLUMN name your app's users: docs/guides/existing-users.md.
    """
    import subprocess

    from keepline.cli.local.program import python

    chosen = [name for name, wanted in (("--check", check), ("--plan", plan), ("--sql", sql)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other")
    # No timeout: indexing a large table takes time, and the operator is watching.
    done = subprocess.run([*python("persister.migrate"), *chosen], check=False)  # noqa: S603
    raise typer.Exit(done.returncode)


def _read_secret_files() -> None:
    """Read secrets from files into the environment, for commands and the programs that they start."""
    try:
        environ = read_secret_files(os.environ)
    except SecretFileError as error:
        raise UsageError(str(error)) from None
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)


def main() -> None:
    """Run the command. Errors print one line on stderr, with exit code 1, or 2 for wrong usage."""
    try:
        _read_secret_files()
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:  # a problem with the command line itself
        text = " ".join(error.format_message().split())
        typer.echo(f"keepline: {text} (see keepline --help)", err=True)
        sys.exit(error.exit_code)
    except CommandError as error:
        typer.echo(f"keepline: {error}", err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)  # Ctrl-C


if __name__ == "__main__":
    main()

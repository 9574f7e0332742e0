"""What `keepline up` prints when everything is ready."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from keepline.cli.demo import qr
from keepline.cli.local.layout import WILDCARDS, Plan
from keepline.cli.local.ports import lan_address


def show(cluster: dict[str, Any], plan: Plan, data: Path) -> None:
    """Print addresses and hints. `cluster` is what `--json` prints."""
    console = Console(highlight=False)
    console.print(f"\n[bold green]Keepline is ready.[/] Open [bold]{cluster['demo']}[/] and start a call.")
    if "lan" in cluster:
        _show_way_from_phone(console, cluster["lan"])
    elif plan.host in WILDCARDS:
        console.print(
            f"From other machines: http://{lan_address()}:{plan.demo_port}/ (without camera and microphone,"
        )
        console.print("which browsers allow only on https and localhost: see --lan).")
    console.print()
    for row in _rows(cluster):
        console.print(row, soft_wrap=True)
    folder = "" if data == Path(".keepline") else f" --data {data}"
    kill = escape(f"{_command()} kill node-1{folder}")
    console.print(f"\n  Kill one: [bold]{kill}[/], or the button on the page.", soft_wrap=True)
    console.print(f"  Logs and data are in {escape(str(data))}. Ctrl-C ends everything.\n", soft_wrap=True)


def _command() -> str:
    """How to call the command from here: `make up` installs it in an environment that is not activated."""
    return (
        "keepline"
        if shutil.which("keepline")
        else os.path.relpath(Path(sys.executable).with_name("keepline"))
    )


def _rows(cluster: dict[str, Any]) -> list[str]:
    programs = [
        (node["id"], node["pid"], f"{node['ws']:<28} {node['http']}/healthz") for node in cluster["nodes"]
    ]
    programs += [
        (f"persister-{number}", persister["pid"], f"{'':<28} {persister['http']}/healthz")
        for number, persister in enumerate(cluster["persisters"], 1)
    ]
    programs += [(name, cluster[name]["pid"], "") for name in ("redis", "postgres") if cluster[name]["pid"]]
    return [f"  {name:<12} pid {pid:<8} {places}".rstrip() for name, pid, places in programs]


def _show_way_from_phone(console: Console, url: str) -> None:
    console.print(f"On a phone in the same network: [bold]{url}[/]", soft_wrap=True)
    console.print("Its browser warns about the certificate, which was made on this machine.")
    if console.is_terminal:
        console.print(qr.terminal(url), markup=False, soft_wrap=True)

"""Results as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.runs import Row

BASE = "keepline"
_LIBRARIES = ("keepline", "websockets", "uvloop", "redis", "hiredis", "msgspec", "orjson")


def machine() -> dict[str, Any]:
    """The system of the measurement."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def as_json(about: dict[str, Any], rows: Sequence[Row], memory: dict[str, int]) -> dict[str, Any]:
    """All results."""
    return {
        "machine": about,
        "results": [{**asdict(row), "messages_per_second": row.result.rate} for row in rows],
        "bytes_per_connection": memory,
    }


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print a table for each scenario of a part."""
    for part, scenario in dict.fromkeys((row.part, row.scenario) for row in rows):
        chosen = [row for row in rows if (row.part, row.scenario) == (part, scenario)]
        console.print(_table(f"{part}, {scenario}", chosen))


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("server")
    for name in ("messages/s", "of ours", "p50 ms", "p99 ms", "CPU µs/message", "of ours", "generator µs"):
        table.add_column(name, justify="right")
    ours = next((row.result for row in rows if row.server == BASE), None)
    for row in rows:
        result = row.result
        table.add_row(
            row.server,
            f"{result.rate:,.0f}",
            _ratio(result.rate, None if ours is None else ours.rate),
            f"{result.p50_ms:.2f}",
            f"{result.p99_ms:.2f}",
            "-" if result.server_cpu_us is None else f"{result.server_cpu_us:.1f}",
            _ratio(result.server_cpu_us, None if ours is None else ours.server_cpu_us),
            f"{result.generator_cpu_us:.1f}",
        )
    return table


def _ratio(value: float | None, base: float | None) -> str:
    return "-" if value is None or not base else f"{value / base:.2f}"


def show_memory(console: Console, memory: dict[str, int]) -> None:
    """Print the memory per connection."""
    table = Table(title="memory of a connection in a room", title_justify="left")
    table.add_column("server")
    table.add_column("KB", justify="right")
    table.add_column("of ours", justify="right")
    for name, size in memory.items():
        table.add_row(name, f"{size / 1e3:.1f}", _ratio(size, memory.get(BASE)))
    console.print(table)

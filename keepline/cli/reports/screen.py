"""The console for results: its width, and whether a table fits."""

import os
import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

PIPED_WIDTH = 240
"""Line width without a terminal."""

_BOUNDLESS = 10_000


def console() -> Console:
    """The console on which results are printed."""
    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if on_terminal else PIPED_WIDTH)


def fits(table: Table, width: int) -> bool:
    """Whether every cell of a table fits on one line."""
    console = Console(width=_BOUNDLESS)
    return Measurement.get(console, console.options, table).maximum <= width


def count(number: int, noun: str) -> str:
    """A count with its noun: "1 room", "2 rooms"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

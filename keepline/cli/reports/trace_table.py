"""A timeline as people read it."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.base.time_text import clock
from keepline.cli.cluster.trace import Timeline

_STYLES = {"lose": "yellow", "lost": "yellow", "end": "bold", "unreadable": "red"}


def render(found: Timeline) -> RenderableType:
    """One line for each thing that happened, with the time since the one before."""
    table = Table(box=None, pad_edge=False)
    for name in ("time (UTC)", "+ms", "node", "side", "what", "version", "status", "detail"):
        table.add_column(name, justify="right" if name in ("+ms", "version") else "left", overflow="fold")
    before = found.lines[0].at if found.lines else 0
    for line in found.lines:
        style = _STYLES.get(line.what, "none")
        table.add_row(
            clock(line.at),
            str(line.at - before),
            escape(line.node),
            "" if line.side is None else str(line.side),
            f"[{style}]{line.what}[/]",
            "" if line.version is None else str(line.version),
            line.status or "",
            escape(line.detail),
        )
        before = line.at
    notes = [
        f"What {escape(name)} saw of it may be missing: {escape(why)}" for name, why in found.missing.items()
    ]
    return Group(table, *notes)

"""A table of a room's history."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.base.time_text import clock
from keepline.cli.cluster.trace import Line, Timeline
from keepline.cli.reports.screen import fits

_DAY = len("2026-01-01")
_STYLES = {"lose": "yellow", "lost": "yellow", "end": "bold", "unreadable": "red"}


def render(found: Timeline, width: int) -> RenderableType:
    """One line per event, with the time since the previous one."""
    table = _wide(found)
    notes = [f"What {escape(name)} saw may be missing: {escape(why)}" for name, why in found.missing.items()]
    if fits(table, width):
        return Group(table, *notes)
    day = clock(found.lines[0].at)[:_DAY] if found.lines else ""
    return Group(f"From {day} (UTC) on:", _narrow(found), *notes)


def _wide(found: Timeline) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("time (UTC)", "+ms", "node", "side", "what", "version", "status", "detail"):
        table.add_column(name, justify="right" if name in ("+ms", "version") else "left", no_wrap=True)
    for line, since in zip(found.lines, _gaps(found), strict=True):
        version = "" if line.version is None else str(line.version)
        table.add_row(
            clock(line.at),
            since,
            escape(line.node),
            _side(line),
            _what(line),
            version,
            line.status or "",
            escape(line.detail),
        )
    return table


def _narrow(found: Timeline) -> Table:
    """Without the day and the version; the status where it has changed."""
    table = Table(box=None, pad_edge=False)
    for name in ("time", "+ms", "node", "side", "what"):
        table.add_column(name, justify="right" if name == "+ms" else "left", no_wrap=True)
    table.add_column("detail", overflow="fold")
    status = None
    for line, since in zip(found.lines, _gaps(found), strict=True):
        changed = line.status if line.status not in (None, status) else None
        status = line.status or status
        detail = ", ".join(part for part in (changed, line.detail) if part)
        table.add_row(
            clock(line.at)[_DAY + 1 :], since, escape(line.node), _side(line), _what(line), escape(detail)
        )
    return table


def _gaps(found: Timeline) -> list[str]:
    times = [line.at for line in found.lines]
    return [str(at - before) for at, before in zip(times, times[:1] + times, strict=False)]


def _side(line: Line) -> str:
    return "" if line.side is None else str(line.side)


def _what(line: Line) -> str:
    return f"[{_STYLES.get(line.what, 'none')}]{line.what}[/]"

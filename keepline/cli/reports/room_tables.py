"""Tables of rooms, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.base.time_text import age, clock
from keepline.cli.cluster.rooms import COMPARED, Listing, RoomView, differences
from keepline.cli.reports.screen import count, fits
from keepline.room.codec import record_to_dict
from keepline.room.record import Room, Side

_TIMES = ("started_at", "ended_at", "grace_period_expires", "due_at")


def as_json(listing: Listing) -> dict[str, Any]:
    """Rooms with their records from Redis, for programs."""
    rooms = [record_to_dict(room) for room in listing.rooms]
    return {"total": listing.total, "unreadable": listing.unreadable, "rooms": rooms}


def listing(found: Listing, width: int) -> RenderableType:
    """The rooms as a table, or, where that has no room, in two lines each."""
    table = _wide(found)
    parts: list[RenderableType] = []
    if found.rooms:
        parts.append(table if fits(table, width) else _narrow(found))
    shown = f", the {len(found.rooms)} that changed last shown" if found.total > len(found.rooms) else ""
    parts.append(f"{count(found.total, 'room')}{shown}")
    if found.unreadable:
        parts.append(f"[bold red]![/] {count(found.unreadable, 'record')} cannot be read: keepline doctor")
    return Group(*parts)


def _wide(found: Listing) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("room", "mode", "status", "version", "side 1", "side 2", "started", "changed"):
        table.add_column(name, no_wrap=True)
    for room in found.rooms:
        table.add_row(
            room.room_id,
            room.chat_mode.value,
            _status(room),
            str(room.version),
            *(_side(side) for side in room.sides),
            f"{age(found.now - room.started_at)} ago",
            f"{age(found.now - room.updated_at)} ago",
        )
    return table


def _narrow(found: Listing) -> RenderableType:
    lines = []
    for room in found.rooms:
        started = f"started {age(found.now - room.started_at)} ago"
        lines.append(f"[bold]{room.room_id}[/]  {room.chat_mode.value}  {_status(room)}")
        lines.append(f"  {', '.join(_side(side) for side in room.sides)}; {started}")
    return Group(*lines)


def _status(room: Room) -> str:
    return (
        room.status.value if room.ended_reason is None else f"{room.status.value} ({room.ended_reason.value})"
    )


def _side(side: Side) -> str:
    where = "" if side.node is None else f" on {escape(side.node)}"
    return f"{side.presence.value}{where}"


def views_as_json(views: list[RoomView]) -> dict[str, Any]:
    """One room in each place, and the differences, for programs."""
    return {
        "places": [
            {"place": view.place, "room": view.fields, "problem": view.problem, **view.extra}
            for view in views
        ],
        "differences": differences(views),
    }


def side_by_side(views: list[RoomView], width: int) -> RenderableType:
    """One room as each place has it, a column each; what differs is marked. Where that has no room, places that have
    the same share a line.
    """
    differing = differences(views)
    rows = [
        (("[bold red]≠[/] " if name in differing else "  ") + name, _cells(views, name)) for name in COMPARED
    ]
    for number in (1, 2):
        rows.append((f"  side {number} held by", [_holder(view, number) for view in views]))
    rows.append(("  due at", [_cell_of(view.extra.get("due_at"), "due_at") for view in views]))
    table = Table(box=None, pad_edge=False)
    for name in ("", *(escape(view.place) for view in views)):
        table.add_column(name, no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *cells)
    shown = table if fits(table, width) else _merged(views, rows)
    return Group(shown, *_notes(views, bool(differing)))


def _merged(views: list[RoomView], rows: list[tuple[str, list[str]]]) -> Table:
    """Each value once, with the places that have it, unless all do that have the room."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, cells in rows:
        places: dict[str, list[str]] = {}
        for view, cell in zip(views, cells, strict=True):
            if view.fields is not None and cell:
                places.setdefault(cell, []).append(escape(view.place))
        alone = len(places) == 1
        said = [cell if alone else f"{cell} ({', '.join(where)})" for cell, where in places.items()]
        table.add_row(name, "\n".join(said))
    return table


def _notes(views: list[RoomView], differ: bool) -> list[str]:
    notes = [f"{escape(view.place)}: {escape(view.problem)}" for view in views if view.problem is not None]
    notes += [
        f"{escape(view.place)} does not have it" for view in views if view.fields is None and not view.problem
    ]
    notes += [
        f"{escape(view.place)} has changes waiting to be stored"
        for view in views
        if view.fields is not None and view.extra.get("settled") is False
    ]
    if differ:
        notes.append(
            "[bold red]They differ.[/] A change may be in progress. If they still differ later: keepline doctor --fix"
        )
    return notes


def _cells(views: list[RoomView], name: str) -> list[str]:
    return [_cell(view, name) for view in views]


def _cell(view: RoomView, name: str) -> str:
    return "" if view.fields is None else _cell_of(view.fields[name], name)


def _cell_of(value: Any, name: str) -> str:
    if value is None:
        return ""
    return clock(value) if name in _TIMES else escape(str(value))


def _holder(view: RoomView, number: int) -> str:
    sides = None if view.fields is None else view.fields.get("sides")
    if sides is None or sides[number - 1]["node"] is None:
        return ""
    side = sides[number - 1]
    here = view.extra.get("here")
    ghost = here is not None and side["node"] == view.place and number not in here
    return f"{escape(side['node'])} {side['session']}" + (" [bold red](not there)[/]" if ghost else "")

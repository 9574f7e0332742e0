"""Rooms as people and programs read them."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from keepline.cli.base.time_text import age, clock
from keepline.cli.cluster.rooms import COMPARED, Listing, RoomView, differences
from keepline.room.codec import record_to_dict
from keepline.room.record import Room, Side

_TIMES = ("started_at", "ended_at", "grace_period_expires", "due_at")


def as_json(listing: Listing) -> dict[str, Any]:
    """The rooms with their records as Redis has them."""
    rooms = [record_to_dict(room) for room in listing.rooms]
    return {"total": listing.total, "unreadable": listing.unreadable, "rooms": rooms}


def listing(found: Listing) -> RenderableType:
    """The rooms as a table."""
    now = found.now
    table = Table(box=None, pad_edge=False)
    for name in ("room", "mode", "status", "version", "side 1", "side 2", "started", "changed"):
        table.add_column(name, overflow="fold", no_wrap=name == "room")
    for room in found.rooms:
        table.add_row(
            room.room_id,
            room.chat_mode.value,
            _status(room),
            str(room.version),
            *(_side(side) for side in room.sides),
            f"{age(now - room.started_at)} ago",
            f"{age(now - room.updated_at)} ago",
        )
    shown = f", the {len(found.rooms)} that changed last shown" if found.total > len(found.rooms) else ""
    parts: list[RenderableType] = [table] if found.rooms else []
    parts.append(f"{found.total} rooms{shown}")
    if found.unreadable:
        parts.append(f"[bold red]![/] {found.unreadable} records cannot be read: keepline doctor")
    return Group(*parts)


def _status(room: Room) -> str:
    return (
        room.status.value if room.ended_reason is None else f"{room.status.value} ({room.ended_reason.value})"
    )


def _side(side: Side) -> str:
    where = "" if side.node is None else f" on {escape(side.node)}"
    return f"{side.presence.value}{where}"


def views_as_json(views: list[RoomView]) -> dict[str, Any]:
    """What each place has, and where they differ."""
    return {
        "places": [
            {"place": view.place, "room": view.fields, "problem": view.problem, **view.extra}
            for view in views
        ],
        "differences": differences(views),
    }


def side_by_side(views: list[RoomView]) -> RenderableType:
    """One room as each place has it, a column each; what differs is marked."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for view in views:
        table.add_column(escape(view.place), overflow="fold")
    differing = differences(views)
    for name in COMPARED:
        mark = "[bold red]≠[/] " if name in differing else "  "
        table.add_row(mark + name, *(_cell(view, name) for view in views))
    for number in (1, 2):
        table.add_row(f"  side {number} held by", *(_holder(view, number) for view in views))
    table.add_row("  due at", *(_cell_of(view.extra.get("due_at"), "due_at") for view in views))
    notes = [f"{escape(view.place)}: {escape(view.problem)}" for view in views if view.problem is not None]
    notes += [
        f"{escape(view.place)} does not have it" for view in views if view.fields is None and not view.problem
    ]
    notes += [
        f"{escape(view.place)} has changes waiting to be stored"
        for view in views
        if view.fields is not None and view.extra.get("settled") is False
    ]
    if differing:
        notes.append(
            "[bold red]They differ.[/] A change may be on its way; if they still differ later: keepline doctor --fix"
        )
    return Group(table, *notes)


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

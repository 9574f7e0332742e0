"""The tables of the command on a terminal of 80 columns, and on a wide one."""

from __future__ import annotations

import io
import uuid

import pytest
from rich.console import Console, RenderableType

from keepline.cli.cluster.rooms import Listing, RoomView
from keepline.cli.cluster.trace import Line, Timeline
from keepline.cli.reports import room_tables, trace_table
from keepline.cli.reports.screen import count
from keepline.room.codec import record_to_dict
from keepline.room.commands import Join
from keepline.room.record import Room
from tests.unit.signal_node.calls import SESSION_1, SESSION_2, after, opened

NARROW, WIDE = 80, 240
NOW = 1_767_225_600_000


def printed(report: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(report, soft_wrap=True)
    return out.getvalue().splitlines()


def a_room() -> Room:
    return after(opened(str(uuid.uuid4())), Join(1, "node-1", SESSION_1), Join(2, "node-2", SESSION_2))


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_rooms_fit_and_nothing_in_them_is_broken(width: int) -> None:
    room = a_room()
    found = Listing([room], 1, 0, NOW)
    lines = printed(room_tables.listing(found, width), width)
    assert max(map(len, lines)) <= width
    (line,) = [line for line in lines if room.room_id in line]
    assert "active" in line
    assert any("joined on node-1" in line and "joined on node-2" in line for line in lines)
    assert lines[-1] == "1 room"
    assert ("version" in lines[0]) == (width == WIDE)


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_one_room_fits_and_what_differs_names_its_places(width: int) -> None:
    fields = record_to_dict(a_room())
    behind = {**fields, "version": 1}
    views = [
        RoomView("Redis", fields),
        RoomView("Postgres", behind),
        RoomView("node-1", fields),
        RoomView("node-2", None),
    ]
    lines = printed(room_tables.side_by_side(views, width), width)
    assert max(map(len, lines[:-1])) <= width
    (version,) = [line for line in lines if "version" in line]
    assert version.lstrip().startswith("≠") or version.startswith("≠")
    assert any("1 (Postgres)" in line for line in lines) == (width == NARROW)
    assert "node-2 does not have it" in lines
    assert sum(fields["user_1"] in line for line in lines) == 1


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_trace_fits_with_one_line_for_each_thing_that_happened(width: int) -> None:
    happened = [
        Line(NOW, "node-1", None, "open", "video", 1, "active"),
        Line(NOW + 12, "node-1", 1, "join", "joined on node-1 by 0a1b2c3d", 2, "active"),
        Line(NOW + 40, "node-2", 2, "candidate", "by 0a1b2c3d, 12 within 340 ms"),
        Line(NOW + 900, "node-2", 2, "lose", "reconnecting", 3, "grace_period"),
    ]
    lines = printed(trace_table.render(Timeline(happened, {}), width), width)
    assert max(map(len, lines)) <= width
    body = lines[-4:]
    assert [line.split()[1 if width == NARROW else 2] for line in body] == ["0", "12", "28", "860"]
    assert [("grace_period" in line) for line in body] == [False, False, False, True]
    assert "2026-01-01" in lines[0 if width == NARROW else 1]


def test_one_of_a_thing_is_not_many() -> None:
    assert [count(number, "room") for number in (0, 1, 2)] == ["0 rooms", "1 room", "2 rooms"]

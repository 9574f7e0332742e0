"""The checker of histories: what it has to find, and what it must not."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import count

import pytest

from keepline.cli.cluster.history import Entry, History, read
from keepline.cli.cluster.history_checker import check

ROOM = "room"


def good() -> list[Entry]:
    """A history in which everything is as it should be."""
    ticks = count()
    history = History(lambda: float(next(ticks)))
    for number in (1, 2, 3):
        history.note("a", ROOM, "invoke", "signal", number)
        history.note("b", ROOM, "ok", "receive", number)
        history.note("a", ROOM, "ok", "signal", number)
    history.note("b", ROOM, "ok", "connection", "lost")
    history.note("a", ROOM, "invoke", "signal", 4)
    history.note("b", ROOM, "ok", "receive", 4)
    history.note("a", ROOM, "info", "signal", 4)
    for seq, (writer, reader) in enumerate((("a", "b"), ("b", "a")), 1):
        history.note(writer, ROOM, "invoke", "chat", f"text {seq}")
        history.note(writer, ROOM, "ok", "chat", {"seq": seq, "text": f"text {seq}"})
        history.note(reader, ROOM, "ok", "line", {"seq": seq, "text": f"text {seq}"})
    history.note("a", ROOM, "invoke", "chat", "refused")
    history.note("a", ROOM, "fail", "chat", "refused")
    for view in ("cluster", "postgres"):
        history.note(view, ROOM, "ok", "lines", [{"seq": seq, "text": f"text {seq}"} for seq in (1, 2)])
    history.note("a", ROOM, "invoke", "end")
    for member in ("a", "b"):
        history.note(member, ROOM, "ok", "ended", "hangup")
    return history.entries


def test_a_good_history_has_no_problems() -> None:
    verdict = check(good())
    assert verdict.problems == []
    assert (verdict.signals, verdict.acknowledged_signals, verdict.unknown) == (4, 3, 1)
    assert (verdict.lines, verdict.acknowledged_lines) == (3, 2)
    assert verdict.recoveries_ms == [2_000.0]


def _without(process: str, f: str, value: object) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: [e for e in entries if (e.process, e.f, e.value) != (process, f, value)]


def _swapped(entries: list[Entry]) -> list[Entry]:
    at = [entry.index for entry in entries if entry.f == "receive"]
    entries[at[0]], entries[at[1]] = entries[at[1]], entries[at[0]]
    return entries


def _again(f: str) -> Callable[[list[Entry]], list[Entry]]:
    def change(entries: list[Entry]) -> list[Entry]:
        at = next(entry.index for entry in entries if entry.f == f)
        return [*entries[: at + 1], *entries[at:]]

    return change


def _view(name: str, *lines: tuple[int, str]) -> Callable[[list[Entry]], list[Entry]]:
    value = [{"seq": seq, "text": text} for seq, text in lines]
    return lambda entries: [
        Entry(e.index, e.time, e.process, e.room, e.type, e.f, value if e.process == name else e.value)
        for e in entries
    ]


BAD = {
    "acknowledged and not there": (_without("b", "receive", 2), "have not arrived: [2]"),
    "twice": (_again("receive"), "have arrived twice: [1]"),
    "out of order": (_swapped, "after later ones: [1]"),
    "sent by nobody": (_without("a", "signal", 4), "that nobody sent: [4]"),
    "a line lost": (_view("postgres", (1, "text 1")), "which postgres does not have"),
    "a line twice": (_view("cluster", (1, "text 1"), (2, "text 2"), (3, "text 2")), "lines twice"),
    "a line refused and stored": (
        _view("cluster", (1, "text 1"), (2, "text 2"), (3, "refused")),
        "'refused' is not stored, and cluster has it",
    ),
    "a line that nobody wrote": (
        _view("cluster", (1, "text 1"), (2, "text 2"), (3, "who?")),
        "lines that nobody wrote: ['who?']",
    ),
    "lines in another order": (
        _view("cluster", (2, "text 2"), (1, "text 1")),
        "cluster has the lines out of order",
    ),
    "shown twice": (_again("line"), "was shown lines twice"),
    "ended by nobody": (_without("a", "end", None), "nobody had ended it"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_found(name: str) -> None:
    change, problem = BAD[name]
    problems = check(change(good())).problems
    assert any(problem in found for found in problems), problems


def test_a_peer_that_left_and_had_not_is_found() -> None:
    entries = good()
    entries.append(Entry(len(entries), 0, "a", ROOM, "ok", "left"))
    assert "had not" in check(entries).problems[0]


def test_a_file_has_the_same_entries() -> None:
    file = io.StringIO()
    history = History(lambda: 0.0, file)
    history.note("a", ROOM, "invoke", "signal", 1)
    history.note("b", ROOM, "ok", "lines", [{"seq": 1, "text": "ä"}])
    assert list(read(file.getvalue().splitlines())) == history.entries

"""Checks a history against the delivery guarantees. Reads nothing but the history. Pure.

- Signals: acknowledged ones have arrived, none has arrived twice, and all are in order.
- Chat: acknowledged messages are stored once, refused ones are not stored, and everyone sees the same order.
- Rooms: none ends before a client ends it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from keepline.cli.cluster.history import Entry


@dataclass(slots=True)
class Verdict:
    """The result. `problems` is empty if every guarantee held. Times are in ms."""

    problems: list[str]
    signals: int = 0
    acknowledged_signals: int = 0
    lines: int = 0
    acknowledged_lines: int = 0
    unknown: int = 0
    recoveries_ms: list[float] = field(default_factory=list)


def check(entries: Iterable[Entry]) -> Verdict:
    """Check a whole history."""
    rooms: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        rooms[entry.room].append(entry)
    verdict = Verdict([])
    for room, happened in rooms.items():
        verdict.problems += [f"{room}: {problem}" for problem in _problems(happened)]
        verdict.recoveries_ms += _recoveries(happened)
        counts = Counter((entry.type, entry.f) for entry in happened)
        verdict.signals += counts["invoke", "signal"]
        verdict.acknowledged_signals += counts["ok", "signal"]
        verdict.lines += counts["invoke", "chat"]
        verdict.acknowledged_lines += counts["ok", "chat"]
        verdict.unknown += counts["info", "signal"] + counts["info", "chat"]
    return verdict


def _problems(happened: Sequence[Entry]) -> Iterator[str]:
    members = sorted(
        {entry.process for entry in happened if entry.f in ("signal", "receive", "chat", "line")}
    )
    for sender, receiver in ((one, other) for one in members for other in members if one != other):
        yield from _of_stream(
            f"{sender} → {receiver}",
            sent=_values(happened, sender, "invoke", "signal"),
            acknowledged=_values(happened, sender, "ok", "signal"),
            received=_values(happened, receiver, "ok", "receive"),
        )
    views = {entry.process: entry.value for entry in happened if entry.f == "lines"}
    for name, lines in views.items():
        yield from _of_chat(name, lines, happened)
    for (first, expected), (other, lines) in pairwise(views.items()):
        if lines != expected:
            yield f"{first} has {len(expected)} lines and {other} has {len(lines)}, or others"
    yield from _of_life(happened)


def _values(happened: Sequence[Entry], process: str, kind: str, operation: str) -> list[Any]:
    return [
        entry.value
        for entry in happened
        if (entry.process, entry.type, entry.f) == (process, kind, operation)
    ]


def _of_stream(
    name: str, *, sent: Sequence[int], acknowledged: Sequence[int], received: Sequence[int]
) -> Iterator[str]:
    if lost := sorted(set(acknowledged) - set(received)):
        yield f"{name}: {len(lost)} signals were acknowledged and have not arrived: {lost[:5]}"
    if doubled := [number for number, times in Counter(received).items() if times > 1]:
        yield f"{name}: {len(doubled)} signals have arrived twice: {doubled[:5]}"
    if moved := [after for before, after in pairwise(received) if after < before]:
        yield f"{name}: {len(moved)} signals have arrived after later ones: {moved[:5]}"
    if unknown := sorted(set(received) - set(sent)):
        yield f"{name}: {len(unknown)} signals have arrived that nobody sent: {unknown[:5]}"


def _of_chat(view: str, lines: Sequence[dict[str, Any]], happened: Sequence[Entry]) -> Iterator[str]:
    texts = Counter(line["text"] for line in lines)
    by_seq = {line["seq"]: line["text"] for line in lines}
    if doubled := [text for text, times in texts.items() if times > 1]:
        yield f"{view} has {len(doubled)} lines twice: {doubled[:5]}"
    if [line["seq"] for line in lines] != sorted(by_seq):
        yield f"{view} has the lines out of order"
    asked = {entry.value for entry in happened if (entry.type, entry.f) == ("invoke", "chat")}
    if unknown := texts.keys() - asked:
        yield f"{view} has {len(unknown)} lines that nobody wrote: {sorted(unknown)[:5]}"
    for entry in happened:
        if entry.f in ("chat", "line") and entry.type == "ok":
            if by_seq.get(entry.value["seq"]) != entry.value["text"]:
                yield f"{entry.process} was told of the line {entry.value}, which {view} does not have"
        elif (entry.type, entry.f) == ("fail", "chat") and entry.value in texts:
            yield f"{entry.process} was told that {entry.value!r} is not stored, and {view} has it"
    for process in {entry.process for entry in happened if entry.f == "line"}:
        shown = [line["seq"] for line in _values(happened, process, "ok", "line")]
        if any(after <= before for before, after in pairwise(shown)):
            yield f"{process} was shown lines twice or out of order: {shown}"


def _of_life(happened: Sequence[Entry]) -> Iterator[str]:
    wanted = next((entry.index for entry in happened if (entry.type, entry.f) == ("invoke", "end")), None)
    for entry in happened:
        if entry.f == "ended" and (wanted is None or entry.index < wanted):
            yield f"{entry.process} was told that it has ended ({entry.value}), and nobody had ended it"
        if entry.f == "left":
            yield f"{entry.process} was told that the other one left, and it had not"


def _recoveries(happened: Sequence[Entry]) -> Iterator[float]:
    """For each lost connection: the time until that process received or delivered a signal again."""
    lost_at: dict[str, int] = {}
    for entry in happened:
        if entry.f == "connection" and entry.value == "lost":
            lost_at.setdefault(entry.process, entry.time)
        elif entry.f in ("signal", "receive") and entry.type == "ok" and entry.process in lost_at:
            yield (entry.time - lost_at.pop(entry.process)) / 1e6

"""Holds what clients were told against what is stored: nothing that was acknowledged may be lost, doubled or moved.

A `Ledger` is kept while a room is under load; afterwards `problems` says everything that is wrong with the chat that
a cluster shows of it. Texts have to be unique within the room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Line = Mapping[str, Any]
"""A line of chat as the protocol shows it: seq, from, text, at."""


@dataclass(slots=True)
class Ledger:
    """What the two members of one room have sent, and what they were told of the chat and of signals."""

    sent: set[str] = field(default_factory=set)
    acknowledged: dict[str, list[Line]] = field(default_factory=dict)
    received: dict[str, list[Line]] = field(default_factory=dict)
    signals: dict[str, list[int]] = field(default_factory=dict)

    def will_send(self, text: str) -> None:
        """A member is about to send it: from now on it may be stored, whether that is answered or not."""
        self.sent.add(text)

    def was_acknowledged(self, member: str, line: Line) -> None:
        """A member got `ok` for its line."""
        self.acknowledged.setdefault(member, []).append(line)

    def was_received(self, member: str, line: Line) -> None:
        """A member was told of the other's line."""
        self.received.setdefault(member, []).append(line)

    def signal_received(self, member: str, number: int) -> None:
        """A member got a signal; the other one numbers them 1, 2, 3 …."""
        self.signals.setdefault(member, []).append(number)

    def problems(self, stored: Sequence[Line]) -> list[str]:
        """Everything that is wrong, given all lines that are stored of the room; empty when all is well."""
        return [
            *_of_the_chat(stored, self.sent),
            *self._of_promises(stored),
            *self._of_what_was_told(stored),
            *self._of_signals(),
        ]

    def _of_promises(self, stored: Sequence[Line]) -> Iterator[str]:
        by_seq = {line["seq"]: line for line in stored}
        for member, lines in self.acknowledged.items():
            for line in lines:
                if by_seq.get(line["seq"]) != line:
                    yield f"acknowledged to {member}: {line}, stored: {by_seq.get(line['seq'])}"
            if not _grows(line["seq"] for line in lines):
                yield f"{member}'s lines were stored in another order than sent"

    def _of_what_was_told(self, stored: Sequence[Line]) -> Iterator[str]:
        for member, lines in self.received.items():
            for line in lines:
                if line not in stored:
                    yield f"{member} was told of {line}, which is not stored"
            if not _grows(line["seq"] for line in lines):
                yield f"{member} was told of lines twice or in another order: {[line['seq'] for line in lines]}"

    def _of_signals(self) -> Iterator[str]:
        for member, numbers in self.signals.items():
            if not _grows(numbers):
                yield f"{member} got signals twice or in another order: {numbers}"


def _of_the_chat(stored: Sequence[Line], sent: set[str]) -> Iterator[str]:
    seqs = [line["seq"] for line in stored]
    if seqs != list(range(1, len(stored) + 1)):
        yield f"the numbers of the stored lines have gaps or doubles: {seqs}"
    texts = Counter(line["text"] for line in stored)
    if doubled := [text for text, times in texts.items() if times > 1]:
        yield f"stored more than once: {doubled}"
    if unknown := texts.keys() - sent:
        yield f"stored, and sent by nobody: {sorted(unknown)}"


def _grows(numbers: Iterable[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def differences(views: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Where views of one room (a node's, Postgres', …) differ from the first of them, field by field."""
    (first, expected), *others = views.items()
    if expected is None:
        return [f"{first} has no room"]
    found = []
    for name, view in others:
        if view is None:
            found.append(f"{name} has no room")
            continue
        for key in sorted(expected.keys() | view.keys()):
            if view.get(key) != expected.get(key):
                found.append(f"{key}: {first} has {expected.get(key)!r}, {name} has {view.get(key)!r}")
    return found

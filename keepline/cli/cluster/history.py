"""A history of what clients did and received, in order. It is all that the delivery checker reads.

Each line is an entry in JSON, in the style of Jepsen's histories: a process starts an operation with `invoke`, and
completes it with `ok` (done), `fail` (certainly not done) or `info` (unknown). An unsolicited event is an `ok` without
an `invoke`. A process is a member of a room, or a place that is read at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TextIO

Kind = Literal["invoke", "ok", "fail", "info"]
Operation = Literal["signal", "receive", "chat", "line", "end", "ended", "connection", "lines", "left"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a history. `time` is in nanoseconds since the history began.

    The `value` is the signal's number for `signal` and `receive`; the text, then the stored message for `chat`; the
    peer's message for `line`; all messages of the room for `lines`; "lost" or "back" for `connection`.
    """

    index: int
    time: int
    process: str
    room: str
    type: Kind
    f: Operation
    value: Any = None


class History:
    """Writes entries as they happen."""

    def __init__(self, clock: Callable[[], float], file: TextIO | None = None) -> None:
        """`clock` is monotonic, in seconds. `file` receives the lines, if they should be saved."""
        self.entries: list[Entry] = []
        self._clock = clock
        self._began = clock()
        self._file = file

    def note(self, process: str, room: str, kind: Kind, operation: Operation, value: Any = None) -> None:
        """Append an entry."""
        time = round((self._clock() - self._began) * 1e9)
        entry = Entry(len(self.entries), time, process, room, kind, operation, value)
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")


def read(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a file. Raises ValueError or TypeError for an invalid line."""
    for line in lines:
        yield Entry(**json.loads(line))

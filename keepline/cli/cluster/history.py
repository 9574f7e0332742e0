"""What clients did and were told, in the order in which it happened: all that the checker of delivery reads.

One entry a line, as JSON, in the form of Jepsen's histories: an operation is an `invoke` by a process, followed by `ok`
(it was done), `fail` (it was not, for certain) or `info` (nobody knows). What a process is told without having asked is
an `ok` without an `invoke`. A process is a member of a room, or a place that is read at the end.
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

    The `value` of `signal` and `receive` is the signal's number, of `chat` the text and then the line, of `line` a line
    that the peer wrote, of `lines` all of the room's; of `connection` "lost" or "back".
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
        """Take a monotonic clock in seconds, and a file for the lines if they are to be kept."""
        self.entries: list[Entry] = []
        self._clock = clock
        self._began = clock()
        self._file = file

    def note(self, process: str, room: str, kind: Kind, operation: Operation, value: Any = None) -> None:
        """Something has happened."""
        time = round((self._clock() - self._began) * 1e9)
        entry = Entry(len(self.entries), time, process, room, kind, operation, value)
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")


def read(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a file. Raises ValueError or TypeError for a line that is none."""
    for line in lines:
        yield Entry(**json.loads(line))

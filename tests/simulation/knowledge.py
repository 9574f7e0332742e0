"""What has been promised in a run, and which of it may be broken because all copies of it were destroyed.

A promise is kept in Redis, in Postgres and in the caches of living nodes. Whenever something destroys copies, what has
none left is written off. Whatever else is missing in the end is a violation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from keepline.room.record import Room, Status
from tests.simulation.trace import Trace

LOST_AT_MOST = 1_000
"""Lines of a room at the most whose numbers may stand for two lines once its history has forked."""


@dataclass(slots=True)
class Copies:
    """What there is of one room just now, all places taken together.

    `behind`: Redis went back to an older record, and only Postgres knows. Nothing looks there as long as there is one.
    """

    found: bool = False
    behind: bool = False
    ended: bool = False
    lines: dict[int, str] = field(default_factory=dict)
    in_postgres_only: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Promise:
    """A room that was acknowledged. `lines` are those of chat that were, by number."""

    room_id: str
    users: tuple[str, str]
    lines: dict[int, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Texts of which the writer was told that they are not stored."""
    ended: bool = False
    written_off: bool = False
    contested: set[int] = field(default_factory=set)
    """Numbers of lines that were lost: they may stand for two lines."""
    in_postgres_only: set[int] = field(default_factory=set)
    """Lines that only Postgres knows since Redis went back to an older state: nothing looks there for them."""


class Knowledge:
    """The promises of a run."""

    def __init__(self, trace: Trace, copies_of: Callable[[str], Copies]) -> None:
        self.rooms: dict[str, Promise] = {}
        self._trace = trace
        self._copies_of = copies_of

    def opened(self, room_id: str, users: tuple[str, str]) -> None:
        """The backend was told that the room is open."""
        self.rooms[room_id] = Promise(room_id, users)

    def line_acknowledged(self, room_id: str, line: dict[str, Any]) -> None:
        """The writer was told that the line is stored."""
        promise, seq = self.rooms[room_id], line["seq"]
        if seq not in self._copies_of(room_id).lines:  # lost while the word was on its way
            promise.contested.add(seq)
            return
        if promise.lines.get(seq, line["text"]) != line["text"] and seq not in promise.contested:
            self._trace.violate(f"line {seq} of {room_id[:8]} was given out twice")
        promise.lines[seq] = line["text"]

    def chat_stored(self, room_id: str, lines: dict[int, str]) -> None:
        """Redis has this chat, with texts that were each written once: each is there once."""
        if len(set(lines.values())) < len(lines):
            twice = [text for text, count in Counter(lines.values()).items() if count > 1]
            self._trace.violate(f"{room_id[:8]} has lines twice: {twice}")
        promise = self.rooms.get(room_id)
        if promise is not None and (refused := promise.refused.intersection(lines.values())):
            self._trace.violate(f"{room_id[:8]} has lines that were refused: {refused}")

    def line_refused(self, who: str, room_id: str, text: str) -> None:
        """A client was told that its line is not stored, and never will be."""
        self.rooms[room_id].refused.add(text)
        if text in self._copies_of(room_id).lines.values():
            self._trace.violate(f"{who} was told that its line {text!r} is not in {room_id[:8]}, and it is")

    def line_shown(self, who: str, room_id: str, line: dict[str, Any]) -> None:
        """A client was shown a line."""
        promise, seq = self.rooms[room_id], line["seq"]
        known = promise.lines.get(seq)
        if known is not None and known != line["text"] and seq not in promise.contested:
            self._trace.violate(f"{who} was shown another line {seq} of {room_id[:8]} than was acknowledged")

    def snapshot_shown(self, who: str, room_id: str, lines: Iterable[dict[str, Any]]) -> None:
        """A client was shown the chat."""
        seqs = [line["seq"] for line in lines]
        if seqs != sorted(set(seqs)):
            self._trace.violate(f"{who} was shown the chat of {room_id[:8]} as {seqs}")
        for line in lines:
            self.line_shown(who, room_id, line)

    def told_twice(self, who: str, room_id: str, line: dict[str, Any]) -> None:
        """A client was told a line that it had, or one before it."""
        if not self.rooms[room_id].contested:
            self._trace.violate(f"{who} was told line {line['seq']} of {room_id[:8]} twice or late")

    def not_found(self, who: str, room_id: str) -> None:
        """A client was told that there is no such room."""
        if not self.rooms[room_id].written_off and not self.rooms[room_id].ended:
            self._trace.violate(f"{who} was told that {room_id[:8]} is not there")

    def lives_again(self, who: str, room_id: str) -> None:
        """To a client, or to Postgres, a room is live that had ended."""
        if self.rooms[room_id].ended:
            self._trace.violate(f"{room_id[:8]} has ended and lives again for {who}")

    def stored(self, before: Room | None, after: Room, *, healing: bool) -> None:
        """Redis has been given a record. While it heals from a loss, what is older may come back for a moment."""
        promise = self.rooms.get(after.room_id)
        if promise is None:
            return
        if after.status is Status.ENDED:
            promise.ended = True
        elif promise.ended and not healing and (before is None or before.status is Status.ENDED):
            self._trace.violate(f"{after.room_id[:8]} has ended, and v{after.version} of it is stored live")

    def forked(self, room_id: str) -> None:
        """After a failover the room went on from the older record before the newer could be put back."""
        promise = self.rooms.get(room_id)
        if promise is not None:
            self._write_off(promise)

    def _write_off(self, promise: Promise) -> None:
        promise.written_off, promise.ended = True, False
        promise.contested |= set(range(1, max(promise.lines, default=0) + LOST_AT_MOST))
        promise.lines.clear()
        self._trace.note("lost", f"room {promise.room_id[:8]}")

    def count_copies(self) -> None:
        """Copies have been destroyed: write off what has none left."""
        for promise in self.rooms.values():
            copies = self._copies_of(promise.room_id)
            short = promise.room_id[:8]
            if (copies.behind or not copies.found) and not promise.written_off:
                self._write_off(promise)
            promise.in_postgres_only |= copies.in_postgres_only
            if promise.ended and not copies.ended:
                promise.ended = False
                self._trace.note("lost", f"the end of {short}")
            for seq in [seq for seq in promise.lines if seq not in copies.lines]:
                del promise.lines[seq]
                promise.contested.add(seq)
                self._trace.note("lost", f"line {seq} of {short}")

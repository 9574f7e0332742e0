"""One room of the cache with its journal: its pending changes, in order.

The comment at the top of `cache` explains how the fields of a `CachedRoom` work together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from msgspec import structs

from keepline.room.commands import Command
from keepline.room.deadlines import due
from keepline.room.effects import Posted
from keepline.room.record import Message, Room
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition
from signal_node.bus import packets
from signal_node.rooms.evicted import Untold
from signal_node.rooms.fanout import Delivery, Notice, Routes
from signal_node.rooms.store import Change

KEPT_LINES = 50
"""Number of chat messages per room that the cache keeps, to restore them if Redis loses them before they are in
Postgres.
"""

UNKNOWN_VERSION = -1
"""Expected for a record that came from Postgres, because Redis may have another record with the same version. No record
has this version, so Redis answers with what it has.
"""

_PEER = b'{"type":"peer"'
"""The beginning of frames that tell of the peer."""


class JournalFull(Exception):
    """Too many changes are pending for Redis. Nothing was done."""


class NotStored(Exception):
    """Redis rejected the change permanently. It has been undone here."""


@dataclass(frozen=True, slots=True)
class Done:
    """The command is committed. The arguments are the room at that moment, and the chat message that it added."""

    room: Room
    message: Message | None = None


Outcome = Done | IllegalTransition | NotStored
OnDone = Callable[[Outcome], None]


def ignore_outcome(outcome: Outcome) -> None:
    """For a command whose result nobody waits for."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A pending change that was made here.

    `at` overrides the time of the command. `told` is what clients were told of it, as pairs of session and frame.
    """

    command: Command
    asker: str | None
    on_done: OnDone
    at: int | None
    after: Room
    message: Message | None
    routes: Routes
    told: frozenset[tuple[str, bytes]] = frozenset()

    def news(self) -> list[Delivery]:
        """What clients of this node should be told at once and have not been."""
        return [each for each in self.routes.at_once if (each.session, each.data) not in self.told]

    def as_told(self) -> Pending:
        """The same change, marked as told."""
        told = self.told.union((each.session, each.data) for each in self.routes.at_once)
        return self if told == self.told else replace(self, told=told)


@dataclass(slots=True, eq=False)
class CachedRoom:
    """A room of the cache. `stored` is the last record known to be in Redis; `head` has the journal applied."""

    room_id: str
    stored: Room | None
    head: Room | None
    expected_version: int
    journal: deque[Pending] = field(default_factory=deque)
    heard: Room | None = None
    early: list[Notice] = field(default_factory=list)
    told_version: int = 0
    untold: tuple[Untold, ...] = ()
    lines: deque[Message] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    @property
    def latest_version(self) -> int:
        """The newest version that is known to be stored."""
        return max((room.version for room in (self.stored, self.heard) if room is not None), default=0)

    def as_told(self) -> Room | None:
        """What clients know of the room: all of its head except chat messages that are not stored yet."""
        if self.head is None or self.stored is None:
            return None
        return structs.replace(self.head, last_seq=self.stored.last_seq)

    def take_heard(self) -> Room | None:
        """Take the newest record from notices that arrived during a commit."""
        heard, self.heard = self.heard, None
        return heard

    def take_stored(self) -> tuple[Room | None, Pending]:
        """The first change of the journal is in Redis: what was there before, and the change."""
        before, pending = self.stored, self.journal.popleft()
        self.stored, self.expected_version = pending.after, pending.after.version
        if pending.message is not None:
            self.lines.append(pending.message)
        return before, pending

    def follow(self, on_done: OnDone, room: Room) -> None:
        """Answer a command that changes nothing, but not before the state that it found is stored."""
        if not self.journal:
            on_done(Done(room))
            return
        last = self.journal[-1]

        def both(outcome: Outcome) -> None:
            last.on_done(outcome)
            on_done(Done(outcome.room) if isinstance(outcome, Done) else outcome)

        self.journal[-1] = replace(last, on_done=both)

    def forget_told(self, news: Delivery) -> None:
        """Send again what pending changes have told a session about its peer, after other news about the peer.

        A client that moves here from a draining node may arrive before that node's notice that its old session is lost.
        """
        if not news.data.startswith(_PEER):
            return
        for at, pending in enumerate(self.journal):
            told = frozenset(
                (session, data)
                for session, data in pending.told
                if session != news.session or not data.startswith(_PEER)
            )
            self.journal[at] = replace(pending, told=told)


def as_change(expected_version: int, before: Room | None, pending: Pending, rules: Rules) -> Change:
    """A change that was made here, as Redis is to store it."""
    deadline = due(pending.after, rules)
    return Change(
        kind=pending.command.kind,
        expected_version=expected_version,
        before=before,
        after=pending.after,
        message=pending.message,
        due_at=None if deadline is None else deadline.at,
        notices={node: packets.notice(data) for node, data in pending.routes.notices.items()},
    )


def message_of(effects: tuple[object, ...]) -> Message | None:
    """The chat message among the effects of a command."""
    return next((effect.message for effect in effects if isinstance(effect, Posted)), None)


def newest(heard: Room | None, stored: Room | None) -> Room | None:
    """The newer of two records; the stored one if their versions are equal."""
    if heard is None or (stored is not None and stored.version >= heard.version):
        return stored
    return heard

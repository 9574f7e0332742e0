"""One room of the cache with its journal: the changes that wait to be stored, one after the other.

The comment at the head of `cache` says how the fields of a `CachedRoom` work together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from msgspec import structs

from keepline.room.commands import Command
from keepline.room.effects import Posted
from keepline.room.record import Message, Room
from keepline.room.state import IllegalTransition
from signal_node.rooms.evicted import Untold
from signal_node.rooms.fanout import Delivery, Notice, Routes

KEPT_LINES = 50
"""Lines of a room's chat that the cache keeps, to put them back if Redis loses them before they are in Postgres."""

UNKNOWN_VERSION = -1
"""Expected of a record that came from Postgres: Redis may have another one under the same version. No record has this
version, so Redis answers with what it has.
"""

_PEER = b'{"type":"peer"'
"""How frames begin that tell of the peer."""


class JournalFull(Exception):
    """Too many changes wait for Redis; nothing was done."""


class NotStored(Exception):
    """Redis refused the change for good; it has been undone here."""


@dataclass(frozen=True, slots=True)
class Done:
    """The command is committed: the room as it then was, and the line of chat that it added."""

    room: Room
    message: Message | None = None


Outcome = Done | IllegalTransition | NotStored
OnDone = Callable[[Outcome], None]


def ignore_outcome(outcome: Outcome) -> None:
    """For a command that nobody waits for."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A change that is made here and waits to be stored.

    `at` is the time of the command where it is not the clock's. `told` is what clients were told of it, as pairs of
    session and frame.
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
        """What clients of this node are to be told at once and were not."""
        return [each for each in self.routes.at_once if (each.session, each.data) not in self.told]

    def as_told(self) -> Pending:
        """The same change, its news told."""
        told = self.told.union((each.session, each.data) for each in self.routes.at_once)
        return self if told == self.told else replace(self, told=told)


@dataclass(slots=True, eq=False)
class CachedRoom:
    """A room of the cache: `stored` is the last record known to be in Redis, `head` what the journal makes of it."""

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
        """What clients know of the room: all of its head but the lines that wait to be stored."""
        if self.head is None or self.stored is None:
            return None
        return structs.replace(self.head, last_seq=self.stored.last_seq)

    def take_heard(self) -> Room | None:
        """The newest record that notices brought while a commit was in flight; it is no longer heard then."""
        heard, self.heard = self.heard, None
        return heard

    def follow(self, on_done: OnDone, room: Room) -> None:
        """Answer a command that changes nothing: not before what it found is stored."""
        if not self.journal:
            on_done(Done(room))
            return
        last = self.journal[-1]

        def both(outcome: Outcome) -> None:
            last.on_done(outcome)
            on_done(Done(outcome.room) if isinstance(outcome, Done) else outcome)

        self.journal[-1] = replace(last, on_done=both)

    def forget_told(self, news: Delivery) -> None:
        """What waits has told a session of its peer, and then came news: it is to be told that again.

        A client on its way from a node that stops may be here before that node's word of the loss of its old session.
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


def message_of(effects: tuple[object, ...]) -> Message | None:
    """The line of chat among the effects of a command."""
    return next((effect.message for effect in effects if isinstance(effect, Posted)), None)


def newest(heard: Room | None, stored: Room | None) -> Room | None:
    """The newer of two records; of two with one version the stored one."""
    if heard is None or (stored is not None and stored.version >= heard.version):
        return stored
    return heard

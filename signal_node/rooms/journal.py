"""One room of the cache with its journal: the changes that wait to be stored, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from keepline.room.commands import Command
from keepline.room.effects import Posted
from keepline.room.record import Message, Room
from keepline.room.state import IllegalTransition
from signal_node.rooms.evicted import Untold
from signal_node.rooms.fanout import Delivery, Notice, Routes

KEPT_LINES = 50
"""Lines of a room's chat that the cache keeps, to put them back if Redis loses them before they are in Postgres."""

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


@dataclass(slots=True, eq=False)
class Pending:
    """A change that is made here and waits to be stored. `told` is what clients were told of it, by session."""

    command: Command
    asker: str | None
    on_done: OnDone
    at: int | None
    after: Room
    message: Message | None
    routes: Routes
    told: set[tuple[str, bytes]] = field(default_factory=set)


@dataclass(slots=True)
class Entry:
    """A room of the cache: `stored` is the last record known to be in Redis, `head` what the journal makes of it."""

    stored: Room | None
    head: Room | None
    expected_version: int
    journal: deque[Pending] = field(default_factory=deque)
    in_flight: bool = False
    heard: Room | None = None  # a newer record that arrived while a commit was in flight
    early: list[Notice] = field(default_factory=list)  # they may stand on the commit in flight
    # Clients are told of everything up to it by comparing: late notices are not for them.
    told_version: int = 0
    untold: list[Untold] = field(default_factory=list)
    lines: deque[Message] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    @property
    def latest_version(self) -> int:
        """The newest version that is known to be stored."""
        return max((room.version for room in (self.stored, self.heard) if room is not None), default=0)

    def as_told(self) -> Room | None:
        """What clients know of the room: all of its head but the lines that wait to be stored."""
        if self.head is None or self.stored is None:
            return None
        return replace(self.head, last_seq=self.stored.last_seq)

    def forget_told(self, news: Delivery) -> None:
        """What waits has told a session of its peer, and then came news: it is to be told that again.

        A client on its way from a node that stops may be here before that node's word of the loss of its old session.
        """
        if news.data.startswith(_PEER):
            for pending in self.journal:
                pending.told = {
                    (session, data)
                    for session, data in pending.told
                    if session != news.session or not data.startswith(_PEER)
                }


def message_of(effects: tuple[object, ...]) -> Message | None:
    """The line of chat among the effects of a command."""
    return next((effect.message for effect in effects if isinstance(effect, Posted)), None)

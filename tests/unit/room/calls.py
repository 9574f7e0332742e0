"""A room, a fake clock and what the room wanted told: the stage of the example tests."""

from __future__ import annotations

from keepline.room.commands import Command, Join, Leave, Lose, Open, Post, Tick
from keepline.room.deadlines import due
from keepline.room.effects import Effect
from keepline.room.record import ChatMode, SideNumber
from keepline.room.rules import Rules
from keepline.room.state import apply
from tests.unit.room.invariants import deadline_violations, step_violations, violations

T0 = 1_800_000_000_000
ROOM = "7f4e6f0e-3a5f-4a6e-9d53-0c2d5f6f7a01"
USER_1 = "11111111-1111-4111-8111-111111111111"
USER_2 = "22222222-2222-4222-8222-222222222222"
SECOND = 1_000


class Call:
    """Opens a room at T0 and carries out commands on it, each at the time that its clock shows."""

    def __init__(self, chat_mode: ChatMode, duration_seconds: int = 0, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.now = T0
        opened = Open(ROOM, USER_1, USER_2, chat_mode, duration_seconds)
        self.room, _ = apply(None, opened, self.now, self.rules)

    def at(self, ms: int) -> Call:
        """Set the clock to so many ms after T0."""
        self.now = T0 + ms
        return self

    def do(self, command: Command) -> tuple[Effect, ...]:
        """Carry out a command; returns what is to be told."""
        before = self.room
        self.room, told = apply(before, command, self.now, self.rules)
        wrong = [
            *step_violations(before, command, self.now, self.room, told),
            *violations(self.room),
            *deadline_violations(self.room, self.rules),
        ]
        assert not wrong, wrong
        return told

    def join(self, side: SideNumber, session: str = "", node: str = "node-1") -> tuple[Effect, ...]:
        """Join with a session named after the side unless told otherwise."""
        return self.do(Join(side, node, session or f"session-{side}"))

    def lose(self, side: SideNumber, session: str = "", *, with_node: bool = False) -> tuple[Effect, ...]:
        """Lose the session of a side."""
        return self.do(Lose(side, session or f"session-{side}", with_node=with_node))

    def leave(self, side: SideNumber, session: str = "") -> tuple[Effect, ...]:
        """Step out on purpose."""
        return self.do(Leave(side, session or f"session-{side}"))

    def post(self, side: SideNumber, text: str = "hi") -> tuple[Effect, ...]:
        """Write a line."""
        return self.do(Post(side, text))

    def tick(self, *, crowded: bool = False) -> tuple[Effect, ...]:
        """Let the deadlines be looked at."""
        return self.do(Tick(crowded))

    @property
    def next_due(self) -> tuple[str, int] | None:
        """Kind of the next deadline, and its ms after T0."""
        deadline = due(self.room, self.rules)
        return None if deadline is None else (deadline.kind, deadline.at - T0)


def video(duration_seconds: int = 0, *, met: bool = True, rules: Rules | None = None) -> Call:
    """A video call, with both sides there since T0 unless told otherwise."""
    return _met(Call(ChatMode.VIDEO, duration_seconds, rules), met)


def text(duration_seconds: int = 0, *, met: bool = True, rules: Rules | None = None) -> Call:
    """A text room, with both sides there since T0 unless told otherwise."""
    return _met(Call(ChatMode.TEXT, duration_seconds, rules), met)


def _met(call: Call, met: bool) -> Call:
    if met:
        call.join(1)
        call.join(2)
    return call

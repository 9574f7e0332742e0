"""Whatever happens to a room, in whatever order and by whatever clock: its record stays legal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import asdict

from keepline.room.commands import (
    AcceptVideo,
    Command,
    DeclineVideo,
    End,
    Join,
    Leave,
    Lose,
    Open,
    Post,
    RequestVideo,
    Revive,
    Tick,
)
from keepline.room.deadlines import due
from keepline.room.effects import Replaced
from keepline.room.record import EndReason, Message, Room, SideNumber, Status, other
from keepline.room.rows import from_row, to_row
from keepline.room.state import IllegalTransition, apply
from tests.unit.room.calls import T0, USER_1
from tests.unit.room.histories import RULES, commands, nodes, openings, pauses, random_lives, sessions, sides
from tests.unit.room.invariants import MOST_TICKS, deadline_violations, step_violations, violations

# A failure is shown by the shortest history that leads to it; to find that may take its time.
pytestmark = pytest.mark.timeout(420)

Holder = tuple[str, str]


def is_live(machine: RoomMachine) -> bool:
    return machine.room.status is not Status.ENDED


class RoomMachine(RuleBasedStateMachine):
    """A room beside a plain memory of who holds its sides and how many lines were written."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.room: Room
        self.holders: dict[int, Holder | None] = {1: None, 2: None}
        self.lines = 0

    @initialize(opening=openings, first_to_come=st.sampled_from(((), (1,), (2,), (1, 2), (2, 1), (1, 2))))
    def open(self, opening: Open, first_to_come: tuple[SideNumber, ...]) -> None:
        self.room, told = apply(None, opening, self.now, RULES)
        assert step_violations(None, opening, self.now, self.room, told) == []
        for side in first_to_come:
            self.join(side, "node-1", "a")

    @rule(ms=pauses)
    def wait(self, ms: int) -> None:
        self.now += ms

    @precondition(is_live)
    @rule(side=sides, node=nodes, session=sessions)
    def join(self, side: SideNumber, node: str, session: str) -> None:
        before = self.holders[side]
        told = self._do(Join(side, node, session))
        assert told is not None
        self.holders[side] = (node, session)
        replaced = [effect for effect in told if isinstance(effect, Replaced)]
        lost = before is not None and before[1] != session
        assert replaced == ([Replaced(*before)] if before is not None and lost else [])

    @precondition(is_live)
    @rule(side=sides, on_purpose=st.booleans())
    def step_out(self, side: SideNumber, on_purpose: bool) -> None:
        holder = self.holders[side]
        if holder is not None:
            self.step_out_of_perhaps_another_side(side, holder[1], on_purpose)
            assert self.holders[side] is None

    @precondition(is_live)
    @rule(number=sides)
    def lose_with_the_node(self, number: SideNumber) -> None:
        holder = self.holders[number]
        if holder is not None:
            assert self._do(Lose(number, holder[1], with_node=True)) is not None
            self.holders[number] = None
            assert self.room.side(number).lost_with_node

    @rule(side=sides, session=sessions, on_purpose=st.booleans())
    def step_out_of_perhaps_another_side(self, side: SideNumber, session: str, on_purpose: bool) -> None:
        before, holder = self.room, self.holders[side]
        assert self._do(Leave(side, session) if on_purpose else Lose(side, session)) is not None
        if holder is not None and holder[1] == session:
            self.holders[side] = None
            assert self.room is not before
        else:
            assert self.room is before

    @precondition(is_live)
    @rule(side=sides, text=st.text(max_size=5))
    def post(self, side: SideNumber, text: str) -> None:
        assert self._do(Post(side, text)) is not None
        self.lines += 1

    @precondition(is_live)
    @rule(side=sides, kind=st.sampled_from((RequestVideo, RequestVideo, AcceptVideo, DeclineVideo)))
    def ask_for_video(self, side: SideNumber, kind: type[RequestVideo | AcceptVideo | DeclineVideo]) -> None:
        self._do(kind(side))

    @precondition(lambda self: self.room.mode_requested_by is not None)
    @rule(answer=st.sampled_from((AcceptVideo, DeclineVideo)))
    def answer_the_request(self, answer: type[AcceptVideo | DeclineVideo]) -> None:
        asked_by = self.room.mode_requested_by
        assert asked_by is not None
        assert self._do(answer(other(asked_by))) is not None
        assert self.room.mode_requested_by is None

    @precondition(lambda self: is_live(self) and self.room.version > 9)
    @rule(reason=st.sampled_from(EndReason))
    def end(self, reason: EndReason) -> None:
        assert self._do(End(reason)) is not None
        self.holders = {1: None, 2: None}

    @precondition(lambda self: not is_live(self))
    @rule(command=commands)
    def disturb_a_tombstone(self, command: Command) -> None:
        before = self.room
        self._do(command)
        assert self.room is before

    @precondition(lambda self: is_live(self) and self.room.version > 5)
    @rule(grace_ms=st.sampled_from((10_000, 30_000)))
    def come_back_from_postgres(self, grace_ms: int) -> None:
        changed_at = max(self.now, self.room.updated_at)
        row = asdict(to_row(self.room)) | {"updated_at": datetime.fromtimestamp(changed_at / 1_000, UTC)}
        kept = [Message(self.lines, USER_1, "hi", self.now)] if self.lines else []
        self.room = from_row(row, kept)
        assert self._do(Revive(grace_ms)) == ()
        self.holders = {1: None, 2: None}

    @rule(crowded=st.booleans())
    def tick(self, crowded: bool = False) -> None:
        deadline = due(self.room, RULES, crowded=crowded)
        before = self.room
        assert self._do(Tick(crowded)) is not None
        assert (self.room is before) is (deadline is None or deadline.at > self.now)
        self._forget_holders_of_an_ended_room()

    @precondition(lambda self: is_live(self) and self.room.version > 4)
    @rule(late_ms=st.sampled_from((-1, -1, -1, 0, 1, 100_000)))
    def tick_about_the_deadline(self, late_ms: int) -> None:
        deadline = due(self.room, RULES)
        if deadline is not None:
            self.now = deadline.at + late_ms
            self.tick()

    @invariant()
    def record_is_legal(self) -> None:
        assert violations(self.room) == []

    @invariant()
    def sides_are_held_by_whom_we_remember(self) -> None:
        held = {
            number: None if side.node is None or side.session is None else (side.node, side.session)
            for number, side in enumerate(self.room.sides, 1)
        }
        assert held == self.holders
        assert self.room.last_seq == self.lines

    @invariant()
    def something_is_due_unless_nothing_is_awaited(self) -> None:
        assert deadline_violations(self.room, RULES) == []

    @invariant()
    def ticks_alone_lead_to_rest(self) -> None:
        for tick in (Tick(), Tick(crowded=True)):
            room, ticks = self.room, 0
            while (deadline := due(room, RULES, crowded=tick.crowded)) is not None:
                after, told = apply(room, tick, deadline.at, RULES)
                assert after is not room
                assert step_violations(room, tick, deadline.at, after, told) + violations(after) == []
                room, ticks = after, ticks + 1
                assert ticks <= MOST_TICKS

    def _do(self, command: Command) -> tuple[object, ...] | None:
        """Carry out a command and check the step; None when the room does not allow it."""
        before = self.room
        try:
            self.room, told = apply(before, command, self.now, RULES)
        except IllegalTransition:
            return None
        assert step_violations(before, command, self.now, self.room, told) == []
        return told

    def _forget_holders_of_an_ended_room(self) -> None:
        if self.room.status is Status.ENDED:
            self.holders = {1: None, 2: None}


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(random_lives, max_examples=400, stateful_step_count=40)

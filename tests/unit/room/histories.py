"""Generated lives of rooms: commands with right and stale sessions, on a clock that now and then jumps back."""

from __future__ import annotations

import contextlib

from hypothesis import Phase, settings
from hypothesis import strategies as st

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
    Tick,
)
from keepline.room.record import ChatMode, EndReason, Room
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition, apply
from tests.unit.room.calls import ROOM, T0, USER_1, USER_2

RULES = Rules()

random_lives = settings(
    derandomize=False,
    print_blob=True,
    deadline=None,
    max_examples=200,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
"""Another seed in every run; a failure prints how to repeat it."""

sides = st.sampled_from((1, 2))
nodes = st.sampled_from(("node-1", "node-2", "node-3"))
sessions = st.sampled_from(("a", "b", "c"))
durations = st.sampled_from((0, 1, 60, 90, 1_800))
pauses = st.one_of(
    st.sampled_from((0, 1, 9_999, 10_000, 29_999, 30_000, 60_000, 120_000)),
    st.integers(0, 200_000),
    st.integers(-30_000, -1),
)
"""ms between two commands; the last kind is a clock that was set back."""

openings = st.builds(
    Open, st.just(ROOM), st.just(USER_1), st.just(USER_2), st.sampled_from(ChatMode), durations
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Join, sides, nodes, sessions),
    st.builds(Join, sides, nodes, sessions, st.booleans()),
    st.builds(Leave, sides, sessions),
    st.builds(Lose, sides, sessions),
    st.builds(Post, sides, st.text(max_size=5)),
    st.builds(RequestVideo, sides),
    st.builds(AcceptVideo, sides),
    st.builds(DeclineVideo, sides),
    st.builds(Tick),
    st.builds(End, st.sampled_from(EndReason)),
)


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    """A room as a life of up to 15 commands left it."""
    now = T0
    room, _ = apply(None, draw(openings), now, RULES)
    for command, pause in draw(st.lists(st.tuples(commands, pauses), max_size=15)):
        now += pause
        with contextlib.suppress(IllegalTransition):
            room, _ = apply(room, command, now, RULES)
    return room

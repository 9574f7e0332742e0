"""A client whose node was deaf is told what it missed, and then knows what it would have known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepline.room.catchup import missed
from keepline.room.commands import AcceptVideo, Command, End, Open, RequestVideo
from keepline.room.effects import (
    Effect,
    InactivityChanged,
    ModeAsked,
    PeerChanged,
    Posted,
    RoomEnded,
)
from keepline.room.record import ChatMode, EndReason, Message, Room, SideNumber
from keepline.room.state import IllegalTransition, apply
from tests.unit.room.calls import T0, USER_1, USER_2, Call, text, video
from tests.unit.room.histories import RULES, commands, openings, pauses, random_lives, sides


@dataclass
class View:
    """What side `number` knows of its room from what it was told."""

    number: SideNumber
    peer: str = "absent"
    mode: ChatMode = ChatMode.VIDEO
    lines: list[Message] = field(default_factory=list)
    ended: EndReason | None = None

    def hear(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, PeerChanged) and effect.to == self.number:
                self.peer = "joined" if effect.state == "reconnected" else effect.state
            elif isinstance(effect, Posted) and effect.to == self.number:
                self.lines.append(effect.message)
            elif isinstance(effect, ModeAsked) and effect.action == "accept":
                self.mode = ChatMode.VIDEO
            elif isinstance(effect, RoomEnded):
                self.ended = effect.reason


@random_lives
@given(openings, st.lists(st.tuples(commands, pauses), max_size=15), st.integers(0, 15), sides)
def test_who_was_deaf_learns_all_that_the_others_were_told(
    opening: Open, life: list[tuple[Command, int]], deaf_from: int, number: SideNumber
) -> None:
    hearing, deaf = View(number, mode=opening.chat_mode), View(number, mode=opening.chat_mode)
    room, _ = apply(None, opening, T0, RULES)
    now, last_heard, lines = T0, room, list[Message]()
    for index, (command, pause) in enumerate(life):
        now += pause
        with contextlib.suppress(IllegalTransition):
            room, told = apply(room, command, now, RULES)
            hearing.hear(told)
            lines.extend(effect.message for effect in told if isinstance(effect, Posted))
            if index < deaf_from:
                deaf.hear(told)
                last_heard = room
    deaf.hear(missed(last_heard, room, number, lines, now, RULES))
    if room.ended_at is not None:
        hearing.peer = deaf.peer  # of a room that is over nobody asks who is there
    assert deaf == hearing


def _missed(call: Call, before: Room, *lines: Message) -> list[Effect]:
    return list(missed(before, call.room, 1, lines, call.now, call.rules))


def test_nothing_new_is_nothing_to_tell() -> None:
    call = video()
    assert _missed(call, call.room) == []


def test_a_grace_period_is_told_with_what_is_left_of_it() -> None:
    call = video()
    before = call.room
    call.lose(2)
    assert _missed(call.at(4_000), before) == [PeerChanged(1, "reconnecting", 6_000)]
    assert _missed(call.at(11_000), before) == [PeerChanged(1, "reconnecting", 0)]


def test_away_and_left_are_told_apart() -> None:
    away, left, left_video = text(), text(), video()
    met = {id(call): call.room for call in (away, left, left_video)}
    away.lose(2)
    left.leave(2)
    left_video.leave(2)
    assert _missed(away, met[id(away)]) == [PeerChanged(1, "away")]
    assert _missed(left, met[id(left)]) == [PeerChanged(1, "left")]
    assert _missed(left_video, met[id(left_video)]) == [PeerChanged(1, "left", 10_000)]


def test_a_first_join_a_return_and_a_takeover() -> None:
    call = video(met=False)
    call.join(1)
    alone = call.room
    call.join(2)
    assert _missed(call, alone) == [PeerChanged(1, "joined")]
    met = call.room
    call.join(2, "session-2b")
    assert _missed(call, met) == [PeerChanged(1, "reconnected")]
    call.leave(2, "session-2b")
    left = call.room
    call.join(2)
    assert _missed(call, left) == [PeerChanged(1, "joined")]


def test_only_new_lines_of_the_peer_are_told() -> None:
    call = text()
    old, mine, theirs = (
        Message(1, USER_2, "a", T0),
        Message(2, USER_1, "b", T0),
        Message(3, USER_2, "c", T0),
    )
    call.post(2, "a")
    before = call.room
    call.post(1, "b")
    call.post(2, "c")
    assert _missed(call, before, old, mine, theirs) == [Posted(1, theirs)]


def test_a_request_and_an_agreement_on_video() -> None:
    call = text()
    before = call.room
    call.do(RequestVideo(2))
    asked = call.room
    assert _missed(call, before) == [ModeAsked(1, "request")]
    assert _missed(call, asked) == []
    call.do(AcceptVideo(1))
    assert _missed(call, asked) == [ModeAsked(1, "accept")]


def test_a_warning_with_the_time_that_is_left() -> None:
    call = text()
    before = call.room
    call.at(120_000).tick()
    assert _missed(call.at(125_000), before) == [InactivityChanged("warning", 55_000)]
    assert _missed(call.at(125_000), call.room) == []


def test_a_warning_that_is_off() -> None:
    call = text()
    call.at(120_000).tick()
    warned = call.room
    call.post(1)
    assert _missed(call, warned) == [InactivityChanged("cleared")]


@pytest.mark.parametrize("call", [video(), text()])
def test_an_end_is_told_once_and_nothing_else_about_a_room_that_is_over(call: Call) -> None:
    before = call.room
    call.do(End(EndReason.HANGUP))
    assert _missed(call, before) == [RoomEnded(EndReason.HANGUP)]
    assert _missed(call, call.room) == []


def test_an_end_by_inactivity_does_not_clear_the_warning() -> None:
    call = text()
    call.at(120_000).tick()
    warned = call.room
    call.at(180_000).tick()
    assert _missed(call, warned) == [RoomEnded(EndReason.INACTIVITY)]

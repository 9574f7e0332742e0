"""How rooms begin and end, who may hold a side, and what is refused."""

from __future__ import annotations

import pytest

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
from keepline.room.effects import PeerChanged, Replaced, RoomEnded
from keepline.room.record import ChatMode, EndReason, Presence, Status, other
from keepline.room.rules import Rules
from keepline.room.state import IllegalTransition, apply
from tests.unit.room.calls import ROOM, SECOND, T0, USER_1, USER_2, Call, text, video

EVERYTHING_BUT_OPEN: list[Command] = [
    Join(1, "node-9", "session-9"),
    Leave(1, "session-1"),
    Lose(1, "session-1"),
    Post(1, "hi"),
    RequestVideo(1),
    AcceptVideo(1),
    DeclineVideo(1),
    End(EndReason.HANGUP),
    Tick(),
]


@pytest.mark.parametrize("chat_mode", ChatMode)
def test_a_room_opens_active_with_nobody_there(chat_mode: ChatMode) -> None:
    room, told = apply(None, Open(ROOM, USER_1, USER_2, chat_mode, 90), T0, Rules())
    assert told == ()
    assert (room.room_id, room.chat_mode, room.duration_seconds) == (ROOM, chat_mode, 90)
    assert (room.side_1.user, room.side_2.user) == (USER_1, USER_2)
    assert (room.status, room.version, room.opened_at, room.updated_at) == (Status.ACTIVE, 1, T0, T0)
    assert [side.presence for side in room.sides] == [Presence.ABSENT, Presence.ABSENT]


def test_a_room_needs_two_different_users() -> None:
    with pytest.raises(IllegalTransition, match="two different users"):
        apply(None, Open(ROOM, USER_1, USER_1, ChatMode.VIDEO, 0), T0, Rules())


@pytest.mark.parametrize("command", EVERYTHING_BUT_OPEN, ids=lambda command: type(command).__name__)
def test_nothing_happens_in_a_room_that_does_not_exist(command: Command) -> None:
    with pytest.raises(IllegalTransition, match="does not exist") as refused:
        apply(None, command, T0, Rules())
    assert (refused.value.status, refused.value.command) == (None, command)


def test_a_room_opens_only_once() -> None:
    call = video()
    again = Open(ROOM, USER_1, USER_2, ChatMode.VIDEO, 0)
    with pytest.raises(IllegalTransition, match="open is not possible in a room that is active"):
        call.do(again)
    call.do(End(EndReason.HANGUP))
    with pytest.raises(IllegalTransition, match="a room that is ended"):
        call.do(again)


def test_members_are_known_by_their_user_and_strangers_are_not() -> None:
    room = video().room
    assert (room.side_of(USER_1), room.side_of(USER_2), room.side_of(ROOM)) == (1, 2, None)
    assert (room.side(1), room.side(2)) == room.sides
    assert (other(1), other(2)) == (2, 1)


def test_started_at_is_when_both_were_there_for_the_first_time() -> None:
    call = video(met=False)
    call.at(2_000).join(1)
    assert (call.room.met_at, call.room.started_at) == (None, T0)
    call.at(3_000).join(2)
    assert (call.room.met_at, call.room.started_at) == (T0 + 3_000, T0 + 3_000)
    call.at(4_000).lose(1)
    call.at(5_000).join(1)
    assert call.room.started_at == T0 + 3_000


def test_two_that_were_never_there_at_the_same_time_have_not_met() -> None:
    call = video(met=False)
    call.join(1)
    call.lose(1)
    call.at(1_000).join(2)
    assert call.room.met_at is None
    call.at(2_000).join(1, "session-1b")
    assert call.room.started_at == T0 + 2_000


@pytest.mark.parametrize("chat_mode", ChatMode)
@pytest.mark.parametrize("who_came", [(), (1,), (2,)])
def test_a_room_ends_as_no_show_after_60_seconds(chat_mode: ChatMode, who_came: tuple[int, ...]) -> None:
    call = Call(chat_mode, 60)
    for side in who_came:
        call.at(5_000).join(1 if side == 1 else 2)
    assert call.next_due == ("no_show", 60 * SECOND)
    assert call.at(60 * SECOND - 1).tick() == ()
    assert call.at(60 * SECOND).tick() == (RoomEnded(EndReason.NO_SHOW),)
    assert (call.room.ended_reason, call.room.ended_at) == (EndReason.NO_SHOW, T0 + 60 * SECOND)


def test_who_has_met_is_no_no_show() -> None:
    call = video()
    assert call.next_due is None
    assert call.at(3_600 * SECOND).tick() == ()


def test_one_who_comes_alone_and_goes_has_a_grace_period_before_the_no_show() -> None:
    call = video(met=False)
    call.at(20_000).join(1)
    call.at(30_000).lose(1)
    assert call.next_due == ("grace", 40_000)
    call.at(39_999).join(1)
    call.at(55_000).lose(1)
    assert call.next_due == ("no_show", 60_000)


def test_the_other_side_hears_of_a_first_join_a_return_and_a_return_after_leaving() -> None:
    call = video(met=False)
    assert call.join(1) == (PeerChanged(2, "joined"),)
    assert call.join(2) == (PeerChanged(1, "joined"),)
    call.lose(2)
    assert call.join(2) == (PeerChanged(1, "reconnected"),)
    call.leave(2)
    assert call.join(2) == (PeerChanged(1, "joined"),)
    call.leave(2)
    call.join(2)
    call.lose(2)
    assert call.join(2) == (PeerChanged(1, "reconnected"),)


def test_who_comes_back_to_a_text_room_has_reconnected() -> None:
    call = text()
    call.lose(1)
    assert call.join(1) == (PeerChanged(2, "reconnected"),)


def test_a_second_connection_takes_over_and_the_first_is_replaced() -> None:
    call = video()
    told = call.at(1_000).join(1, "session-1b", "node-2")
    assert told == (PeerChanged(2, "reconnected"), Replaced("node-1", "session-1"))
    assert (call.room.side_1.node, call.room.side_1.session) == ("node-2", "session-1b")
    assert call.room.status is Status.ACTIVE


def test_the_same_session_again_changes_nothing() -> None:
    call = video()
    before = call.room
    assert call.at(1_000).join(1) == ()
    assert call.room is before


def test_a_session_that_moved_to_another_node_is_not_replaced_by_itself() -> None:
    call = video()
    assert call.join(1, node="node-2") == (PeerChanged(2, "reconnected"),)
    assert (call.room.side_1.node, call.room.side_1.session) == ("node-2", "session-1")


def test_who_takes_over_an_empty_side_replaces_nobody() -> None:
    call = video()
    call.lose(1)
    assert call.join(1, "session-1b") == (PeerChanged(2, "reconnected"),)


def test_a_session_that_lost_its_side_by_mistake_takes_it_again_unless_another_has_it() -> None:
    call = video()
    call.lose(1)
    assert call.do(Join(1, "node-1", "session-1", only_if_free=True)) == (PeerChanged(2, "reconnected"),)
    call.lose(1)
    call.join(1, "session-1b")
    before = call.room
    assert call.do(Join(1, "node-1", "session-1", only_if_free=True)) == ()
    assert call.room is before


@pytest.mark.parametrize("command", [Lose, Leave])
def test_a_session_that_was_replaced_no_longer_speaks_for_the_side(command: type[Lose | Leave]) -> None:
    call = video()
    call.join(1, "session-1b")
    before = call.room
    assert call.do(command(1, "session-1")) == ()
    assert call.do(command(2, "session-1b")) == ()
    assert call.room is before


@pytest.mark.parametrize("command", [Lose, Leave])
def test_the_first_to_step_out_decides_whether_it_was_on_purpose(command: type[Lose | Leave]) -> None:
    call = video()
    call.leave(1)
    before = call.room
    assert call.at(5_000).do(command(1, "session-1")) == ()
    assert call.room is before
    assert call.room.side_1.presence is Presence.LEFT


@pytest.mark.parametrize("reason", EndReason)
def test_ending_vacates_the_room_and_tells_both(reason: EndReason) -> None:
    call = video()
    call.lose(2)
    assert call.at(4_000).do(End(reason)) == (RoomEnded(reason),)
    room = call.room
    assert (room.status, room.ended_reason, room.ended_at) == (Status.ENDED, reason, T0 + 4_000)
    assert [side.connected for side in room.sides] == [False, False]
    assert [side.absent_since for side in room.sides] == [T0 + 4_000, T0]
    assert (room.grace_period_expires, call.next_due) == (None, None)


@pytest.mark.parametrize("command", [Leave(1, "session-1"), Lose(1, "session-1"), Tick()])
def test_late_news_of_a_room_that_is_over_change_nothing(command: Command) -> None:
    call = video(60)
    call.do(End(EndReason.HANGUP))
    before = call.room
    assert call.at(3_600 * SECOND).do(command) == ()
    assert call.room is before


@pytest.mark.parametrize(
    "command",
    [
        Join(1, "node-1", "session-1"),
        Post(1, "hi"),
        RequestVideo(1),
        AcceptVideo(1),
        DeclineVideo(1),
        End(EndReason.DELETED),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_tombstone_never_lives_again(command: Command) -> None:
    call = text()
    call.do(End(EndReason.HANGUP))
    with pytest.raises(IllegalTransition, match="a room that is ended"):
        call.do(command)
    assert call.room.ended_reason is EndReason.HANGUP


def test_a_clock_that_jumps_back_does_not_take_updated_at_along() -> None:
    call = video()
    call.at(10_000).post(1)
    call.at(4_000).post(2)
    assert (call.room.updated_at, call.room.version) == (T0 + 10_000, 5)

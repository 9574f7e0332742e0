"""What a node counts of calls: from the transitions it has committed, and from the offers that came in."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw
from prometheus_client.core import HistogramMetricFamily

from keepline.ops.metrics import Timings
from keepline.room.commands import Command, End, Join, Leave, Lose, Post, Tick
from keepline.room.record import ChatMode, EndReason, Room, SideNumber
from signal_node.protocol.client_frames import Signal, forwarded
from signal_node.rooms.cache import Rooms
from signal_node.telemetry.call_counts import CallCounter
from signal_node.telemetry.offer_outcomes import ANSWER_SECONDS, MAX_OPEN, MIN_BYTES, OfferOutcomes
from signal_node.telemetry.room_gauges import RoomGauges
from tests.unit.signal_node.calls import (
    OTHER_ROOM,
    ROOM,
    SESSION_1,
    SESSION_2,
    T0,
    after,
    met,
    opened,
    opening,
    step,
)


class Calls:
    """Commits commands one after the other, and tells the indicators."""

    def __init__(self) -> None:
        self.call_counts = CallCounter()
        self.room: Room | None = None

    def do(self, command: Command, now: int = T0) -> None:
        before = self.room
        self.room, _ = step(before, command, now)
        self.call_counts.committed(command, before, self.room)

    def meet(self) -> None:
        self.do(opening())
        self.do(Join(1, "here", SESSION_1), T0 + 1_000)
        self.do(Join(2, "there", SESSION_2), T0 + 3_500)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def seconds(timings: Timings) -> tuple[int, float]:
    """How many there were, and their sum."""
    family = HistogramMetricFamily("x", "x")
    timings.add_to(family)
    total = next(sample.value for sample in family.samples if sample.name == "x_sum")
    return timings.count, total


def test_a_meeting_is_counted_once_with_how_long_the_first_one_waited(calls: Calls) -> None:
    calls.meet()
    calls.do(Join(2, "here", "session-2-later"), T0 + 60_000)
    counts = calls.call_counts.counts
    assert (counts.opened["video"], counts.met) == (1, 1)
    assert seconds(counts.meeting) == (1, 2.5)


def test_a_side_that_comes_back_ends_its_absence(calls: Calls) -> None:
    calls.meet()
    calls.do(Lose(1, SESSION_1), T0 + 10_000)
    calls.do(Join(1, "there", "session-1-later"), T0 + 14_000)
    counts = calls.call_counts.counts
    assert (counts.returned, counts.expired, counts.ended_meanwhile) == (1, 0, 0)
    assert seconds(counts.absence) == (1, 4.0)


def test_a_side_that_does_not_come_back_in_time_expires(calls: Calls) -> None:
    calls.meet()
    calls.do(Lose(1, SESSION_1), T0 + 10_000)
    calls.do(Tick(), T0 + 25_000)
    counts = calls.call_counts.counts
    assert (counts.returned, counts.expired, counts.ended_meanwhile) == (0, 1, 0)
    assert counts.ended == {("grace_expired", "video"): 1}


def test_a_side_may_be_absent_when_the_other_hangs_up(calls: Calls) -> None:
    calls.meet()
    calls.do(Lose(1, SESSION_1))
    calls.do(End(EndReason.HANGUP))
    assert calls.call_counts.counts.ended_meanwhile == 1
    assert calls.call_counts.counts.ended == {("hangup", "video"): 1}


def test_who_left_on_purpose_is_not_awaited(calls: Calls) -> None:
    calls.meet()
    calls.do(Leave(1, SESSION_1))
    calls.do(Join(1, "here", "session-1-later"))
    calls.do(Leave(1, "session-1-later"))
    calls.do(End(EndReason.HANGUP))
    counts = calls.call_counts.counts
    assert (counts.returned, counts.expired, counts.ended_meanwhile) == (0, 0, 0)


def test_an_ordinary_line_of_chat_counts_as_nothing(calls: Calls) -> None:
    calls.meet()
    calls.do(Post(1, "hello"))
    assert calls.call_counts.counts.ended == {}


# --- offers and answers ---


class Talk:
    """The offers of a node whose cache holds one room."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rooms = {ROOM: met()}
        self.offer_outcomes = OfferOutcomes(self.rooms.get, lambda: self.now)

    def send(self, kind: str, side: SideNumber, room: str = ROOM) -> None:
        self.offer_outcomes.sent(room, side, kind)

    def receive(self, kind: str) -> None:
        self.offer_outcomes.received(description(kind, ROOM))

    @property
    def outcomes(self) -> tuple[int, int, int, int]:
        counts = self.offer_outcomes.counts
        return counts.answered, counts.unanswered, counts.superseded, counts.interrupted


def description(kind: str, room: str) -> bytes:
    data = Raw(msgspec.json.encode({"description": {"type": kind, "sdp": "v=0\r\n" + MIN_BYTES * "a"}}))
    return forwarded(Signal(room=room, stream="s" * 64, n=2**53 - 1, data=data))


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_an_answer_ends_the_offer_of_the_other_side(talk: Talk) -> None:
    talk.send("offer", 1)
    talk.now += 0.25
    talk.send("answer", 2)
    talk.send("answer", 2)
    assert talk.outcomes == (1, 0, 0, 0)
    assert seconds(talk.offer_outcomes.counts.seconds) == (1, 0.25)


def test_nobody_answers_his_own_offer(talk: Talk) -> None:
    talk.send("offer", 1)
    talk.send("answer", 1)
    assert talk.outcomes == (0, 0, 0, 0)


def test_the_answer_may_come_from_another_node_and_an_offer_from_there_is_not_counted(talk: Talk) -> None:
    talk.receive("offer")
    talk.send("answer", 1)
    assert talk.outcomes == (0, 0, 0, 0)
    talk.send("offer", 1)
    talk.receive("answer")
    assert talk.outcomes == (1, 0, 0, 0)


def test_a_newer_offer_takes_the_place_of_the_one_before(talk: Talk) -> None:
    talk.send("offer", 1)
    talk.send("offer", 2)
    talk.send("answer", 1)
    assert talk.outcomes == (1, 0, 1, 0)


@pytest.mark.parametrize(("room", "outcomes"), [(met(), (0, 1, 0, 0)), (None, (0, 0, 0, 1))])
def test_without_an_answer_it_has_failed_if_both_were_there(
    talk: Talk, room: Room | None, outcomes: tuple[int, int, int, int]
) -> None:
    talk.send("offer", 1)
    if room is None:
        del talk.rooms[ROOM]
    talk.now += ANSWER_SECONDS - 0.1
    talk.offer_outcomes.give_up()
    assert talk.outcomes == (0, 0, 0, 0)
    talk.now += 0.1
    talk.offer_outcomes.give_up()
    assert talk.outcomes == outcomes


def test_open_offers_are_bounded(talk: Talk) -> None:
    for number in range(MAX_OPEN + 10):
        talk.send("offer", 1, f"{number:036}")
    assert len(talk.offer_outcomes._open) == MAX_OPEN


# --- rooms ---


async def test_a_room_is_counted_where_its_first_side_is() -> None:
    rooms: dict[str, Room] = {
        ROOM: met("here", "there"),
        "b": met("there", "here"),
        "c": after(met("there", "here", chat_mode=ChatMode.TEXT), Lose(1, SESSION_1)),
        "d": after(met("there", "here"), Lose(1, SESSION_1)),
        OTHER_ROOM: opened(OTHER_ROOM),
    }

    class Cache:
        get = staticmethod(rooms.get)

        def cached(self) -> list[str]:
            return [*rooms, "gone meanwhile"]

    room_gauges = RoomGauges("here", cast(Rooms, cast(Any, Cache())))
    await room_gauges.count()
    assert room_gauges.counts == {("active", "video"): 1, ("active", "text"): 1, ("grace_period", "video"): 1}

"""Who waits to come in: who goes first, what those who wait are told, and when the refused come again."""

from __future__ import annotations

import pytest

from signal_node.signaling.admission_queue import (
    EARLY,
    FIRST_NOTICE_SECONDS,
    FIRST_PACE,
    MAX_RETRY_SECONDS,
    MAX_WAITING,
    NOTICE_SECONDS,
    OVERTIME,
    WINDOW_SECONDS,
    AdmissionQueue,
    Line,
    Notice,
    Pace,
    Refusal,
)

PATIENCE = 8.0


ALL = MAX_WAITING
"""More than are to be told something."""


class Door:
    """A queue with its clock, served at a pace of its own."""

    def __init__(self, at_once: int = 1, pace: float = 0.01) -> None:
        self.queue: AdmissionQueue[str] = AdmissionQueue(at_once, PATIENCE)
        self.now = 100.0
        self.pace = pace

    def add(self, *names: str, line: Line = Line.NEW) -> list[int | None]:
        return [self.queue.add(name, self.now, line) for name in names]

    def begin(self) -> list[str]:
        """All whose turn it is."""
        begun = []
        while (turn := self.queue.next(self.now)) is not None:
            begun.append(turn[0])
        return begun

    def serve(self, clients: int) -> list[str]:
        """Serve so many one after the other, at the pace."""
        served = []
        for _ in range(clients):
            self.now += self.pace
            self.queue.done(self.now)
            served += self.begin()
        return served

    def told(self) -> list[Notice[str] | Refusal[str]]:
        return list(self.queue.due(self.now, ALL))


def test_who_comes_alone_goes_at_once() -> None:
    door = Door()
    assert door.add("a") == [None]
    assert door.begin() == ["a"]
    assert door.queue.next(door.now) is None


def test_only_so_many_are_under_way() -> None:
    door = Door(at_once=2)
    door.add("a", "b", "c")
    assert door.begin() == ["a", "b"]
    door.queue.done(door.now)
    assert door.begin() == ["c"]


def test_joins_go_first_then_who_comes_back_then_who_is_new_and_each_in_order() -> None:
    door = Door()
    door.add("first")
    door.begin()
    door.add("new 1", "new 2")
    door.add("back 1", "back 2", line=Line.RESUME)
    door.add("join 1", "join 2", line=Line.JOIN)
    assert door.serve(6) == ["join 1", "join 2", "back 1", "back 2", "new 1", "new 2"]


def test_it_is_known_how_long_one_has_waited() -> None:
    door = Door()
    door.add("a")
    door.now += 1.5
    assert door.queue.next(door.now) == ("a", 1.5)


def test_who_has_gone_is_not_waited_for() -> None:
    door = Door()
    door.add("first", "gone", "next")
    door.begin()
    door.queue.remove("gone")
    door.queue.remove("never there")
    assert len(door.queue) == 1
    assert door.serve(1) == ["next"]
    door.now += 3_600
    assert door.told() == [], "nobody who is not here is told anything"


def crowd(door: Door, clients: int, line: Line = Line.NEW) -> tuple[list[str], list[int]]:
    """So many come at the same moment: those who may wait, and the others' times to come again."""
    names = [f"{line.name} {number}" for number in range(clients)]
    answers = door.add(*names, line=line)
    waiting = [name for name, answer in zip(names, answers, strict=True) if answer is None]
    return waiting, [answer for answer in answers if answer is not None]


def measured(pace: float) -> Door:
    """A door whose pace is known: that of some who came one by one while others waited."""
    door = Door(pace=pace)
    door.queue.pace.seconds = pace
    door.add("first", "second")
    door.begin()
    for number in range(1_000):
        door.add(f"earlier {number}")
        door.serve(1)
    door.serve(1)
    return door


def test_who_cannot_be_served_in_time_is_told_at_once_when_to_come() -> None:
    door = measured(pace=0.01)
    waiting, refused = crowd(door, 2_000)
    assert len(waiting) == pytest.approx(PATIENCE / 0.01, rel=0.01)
    assert door.queue.is_full(Line.NEW)
    assert refused == sorted(refused)
    # Spread over the time that it really takes, a little early.
    assert refused[0] == pytest.approx(EARLY * PATIENCE * 1_000, rel=0.02)
    assert refused[-1] == pytest.approx(EARLY * 2_000 * 0.01 * 1_000, rel=0.02)


def test_the_refused_who_come_a_quarter_later_than_told_find_places_and_work_for_the_node() -> None:
    door = measured(pace=0.01)
    _, refused = crowd(door, 2_000)
    due = [door.now + 1.25 * after_ms / 1_000 for after_ms in refused]
    again = idle = 0
    for number, at in enumerate(due):
        while door.now < at:
            door.serve(1)
        idle += not len(door.queue) and not door.queue.under_way
        again += door.queue.add(f"again {number}", door.now, Line.NEW) is not None
        door.begin()
    assert (again, idle) == (0, 0)


def test_those_who_come_back_have_places_of_their_own() -> None:
    door = measured(pace=0.01)
    crowd(door, 2_000)
    assert door.queue.is_full(Line.NEW)
    assert not door.queue.is_full(Line.RESUME)
    waiting, _ = crowd(door, 100, Line.RESUME)
    assert len(waiting) == 100
    assert door.serve(1) == ["RESUME 0"]


def test_who_had_to_let_others_go_before_is_told_when_it_has_waited_for_too_long() -> None:
    door = measured(pace=0.02)
    began = door.now
    crowd(door, 390)
    for number in range(500):
        door.add(f"back {number}", line=Line.RESUME)
        door.serve(1)
    assert door.now - began > PATIENCE
    told = door.told()
    refused = [each for each in told if isinstance(each, Refusal)]
    assert refused[-1].key == "NEW 389"
    assert all(each.retry_after_ms > 0 for each in refused)
    # Those who will be served soon even now would lose their places.
    assert len(told) - len(refused) == pytest.approx(OVERTIME * PATIENCE / 0.02, rel=0.05)
    assert refused[-1].key not in door.serve(1_000)


def test_who_waits_is_told_so_after_a_while_and_again_while_there_is_time() -> None:
    door = measured(pace=0.01)
    door.add("a", "b")
    assert door.told() == []
    door.now += FIRST_NOTICE_SECONDS
    first, second = door.told()
    assert first == Notice("a", 0, 10)
    assert second == Notice("b", 1, 20)
    door.now += FIRST_NOTICE_SECONDS
    assert door.told() == []
    door.now += NOTICE_SECONDS - FIRST_NOTICE_SECONDS
    assert [each.key for each in door.told()] == ["a", "b"]


def test_thousands_are_not_told_in_one_tick() -> None:
    door = measured(pace=0.001)
    crowd(door, 1_000)
    door.now += FIRST_NOTICE_SECONDS
    assert len(list(door.queue.due(door.now, 10))) == 10
    assert len(door.told()) == 990


def test_what_waits_and_what_is_told_is_bounded() -> None:
    waiting, refused = crowd(measured(pace=0.000_01), MAX_WAITING + 100)
    assert len(waiting) == MAX_WAITING
    slow = measured(pace=2.0)
    _, refused = crowd(slow, 500)
    assert max(refused) == MAX_RETRY_SECONDS * 1_000


# --- the pace ---


def served(pace: Pace, seconds: float, times: int, now: float, comings: int = 0) -> float:
    """So many are served at that pace; for each so many come."""
    for _ in range(times):
        for _ in range(comings):
            pace.came()
        now += seconds
        pace.served(now, others_wait=True)
    return now


def test_a_faster_pace_is_believed_at_once() -> None:
    pace = Pace()
    served(pace, FIRST_PACE / 4, 2 + round(WINDOW_SECONDS / (FIRST_PACE / 4)), 10.0)
    assert pace.seconds == pytest.approx(FIRST_PACE / 4)


def test_a_slower_one_by_and_by() -> None:
    pace = Pace()
    now = served(pace, 3 * FIRST_PACE, 2 + round(WINDOW_SECONDS / (3 * FIRST_PACE)), 10.0)
    assert FIRST_PACE < pace.seconds < 1.5 * FIRST_PACE
    served(pace, 3 * FIRST_PACE, 10_000, now)
    assert pace.seconds == pytest.approx(3 * FIRST_PACE, rel=0.01)


def test_while_a_crowd_shakes_hands_nothing_is_learned_of_how_slow_it_is() -> None:
    pace = Pace()
    served(pace, 3 * FIRST_PACE, 2_000, 10.0, comings=3)
    assert pace.seconds == FIRST_PACE


def test_an_hour_without_a_crowd_says_nothing() -> None:
    pace = Pace()
    pace.served(10.0, others_wait=True)
    pace.served(10.1, others_wait=False)
    pace.served(3_610.0, others_wait=True)
    served(pace, FIRST_PACE, 10, 3_610.0)
    assert pace.seconds == FIRST_PACE


def test_who_waited_in_vain_shows_how_slow_it_is() -> None:
    door = Door(pace=0.05)
    door.add("first")
    door.begin()
    crowd(door, 1_000, Line.RESUME)
    assert door.queue.pace.seconds == FIRST_PACE
    for _ in range(round(PATIENCE / 0.05) + 1):
        door.queue.pace.came()
        door.queue.pace.came()  # others come all the time: no window counts
        door.serve(1)
    assert door.queue.pace.seconds == FIRST_PACE
    assert door.told()
    assert door.queue.pace.seconds == pytest.approx(0.05, rel=0.01)

"""The queue of hellos: who goes first, what those who wait are told, and when the refused come again."""

from __future__ import annotations

import pytest

from signal_node.signaling.hello_queue import (
    FIRST_NOTICE_SECONDS,
    MAX_RETRY_SECONDS,
    MAX_WAITING,
    NOTICE_SECONDS,
    HelloQueue,
    Notice,
)

PATIENCE = 8.0


class Line:
    """A queue with its clock, served at a pace of its own."""

    def __init__(self, at_once: int = 1, pace: float = 0.01) -> None:
        self.queue: HelloQueue[str] = HelloQueue(at_once, PATIENCE)
        self.now = 100.0
        self.pace = pace

    def add(self, *names: str, comes_back: bool = False) -> list[int | None]:
        return [self.queue.add(name, self.now, comes_back=comes_back) for name in names]

    def begin(self) -> list[str]:
        """All whose turn it is."""
        begun = []
        while (turn := self.queue.next(self.now)) is not None:
            begun.append(turn[0])
        return begun

    def serve(self, hellos: int) -> list[str]:
        """Answer hellos one after the other, at the pace."""
        served = []
        for _ in range(hellos):
            self.now += self.pace
            self.queue.done(self.now)
            served += self.begin()
        return served


def test_who_comes_alone_goes_at_once() -> None:
    line = Line()
    assert line.add("a") == [None]
    assert line.begin() == ["a"]
    assert line.queue.next(line.now) is None


def test_only_so_many_are_under_way() -> None:
    line = Line(at_once=2)
    line.add("a", "b", "c")
    assert line.begin() == ["a", "b"]
    line.queue.done(line.now)
    assert line.begin() == ["c"]


def test_who_comes_back_goes_before_who_is_new_and_each_in_order() -> None:
    line = Line()
    line.add("first")
    line.begin()
    line.add("new 1", "new 2")
    line.add("back 1", "back 2", comes_back=True)
    assert line.serve(4) == ["back 1", "back 2", "new 1", "new 2"]


def test_it_is_known_how_long_one_has_waited() -> None:
    line = Line()
    line.add("a")
    line.now += 1.5
    assert line.queue.next(line.now) == ("a", 1.5)


def test_who_has_gone_is_not_waited_for() -> None:
    line = Line()
    line.add("first", "gone", "next")
    line.begin()
    line.queue.remove("gone")
    line.queue.remove("never there")
    assert line.serve(1) == ["next"]


def crowd(line: Line, clients: int, *, comes_back: bool = False) -> tuple[list[str], list[int]]:
    """So many come at the same moment: those who may wait, and the others' times to come again."""
    names = [f"{'back' if comes_back else 'new'} {number}" for number in range(clients)]
    answers = line.add(*names, comes_back=comes_back)
    waiting = [name for name, answer in zip(names, answers, strict=True) if answer is None]
    return waiting, [answer for answer in answers if answer is not None]


def measured(pace: float) -> Line:
    """A line whose pace is known."""
    line = Line(pace=pace)
    line.add("first")
    line.begin()
    line.add(*(f"earlier {number}" for number in range(1_000)), comes_back=True)
    line.serve(1_000)
    return line


def test_who_cannot_be_served_in_time_is_told_at_once_when_it_is_its_turn() -> None:
    line = measured(pace=0.01)
    waiting, refused = crowd(line, 2_000)
    assert len(waiting) == pytest.approx(PATIENCE / 0.01, rel=0.01)
    assert line.queue.is_full
    assert refused[0] == pytest.approx(PATIENCE * 1_000, rel=0.02)
    assert refused == sorted(refused)
    assert refused[-1] == pytest.approx(
        2_000 * 0.01 * 1_000, rel=0.02
    )  # spread over the time it really takes


def test_the_refused_who_come_when_they_were_told_are_served() -> None:
    line = measured(pace=0.01)
    _, refused = crowd(line, 2_000)
    due = [line.now + after_ms / 1_000 for after_ms in refused]
    again = 0
    for number, at in enumerate(due):
        while line.now < at:
            line.serve(1)
        again += line.queue.add(f"again {number}", line.now, comes_back=False) is not None
    assert again == 0


def test_those_who_come_back_have_places_of_their_own() -> None:
    line = measured(pace=0.01)
    crowd(line, 2_000)
    waiting, _ = crowd(line, 100, comes_back=True)
    assert len(waiting) == 100
    assert line.serve(1) == ["back 0"]


def test_who_had_to_let_others_go_before_is_told_when_it_has_waited_for_too_long() -> None:
    line = Line(pace=0.02)
    line.add("first")
    line.begin()
    line.add("new")
    for number in range(500):
        line.add(f"back {number}", comes_back=True)
        line.serve(1)
    assert line.now - 100 > PATIENCE
    (refusal,) = line.queue.expired(line.now)
    assert refusal.key == "new"
    assert refusal.retry_after_ms > 0
    assert line.queue.expired(line.now) == []
    assert "new" not in line.serve(10)


def test_who_waits_is_told_so_after_a_while_and_again() -> None:
    line = measured(pace=0.01)
    line.add("a", "b")
    assert line.queue.notices(line.now) == []
    line.now += FIRST_NOTICE_SECONDS
    assert [(notice.key, notice.ahead) for notice in line.queue.notices(line.now)] == [("a", 0), ("b", 1)]
    line.now += FIRST_NOTICE_SECONDS
    assert line.queue.notices(line.now) == []
    line.now += NOTICE_SECONDS - FIRST_NOTICE_SECONDS
    first, second = line.queue.notices(line.now)
    assert (first.key, second) == ("a", Notice("b", 1, second.wait_ms))
    assert second.wait_ms == pytest.approx(20, abs=2)


def test_an_hour_without_a_crowd_says_nothing_of_the_pace() -> None:
    line = measured(pace=0.01)
    line.add("only")
    line.queue.remove("only")
    line.now += 3_600
    line.queue.done(line.now)
    line.add("a", "b")
    line.begin()
    line.now += FIRST_NOTICE_SECONDS
    (notice,) = line.queue.notices(line.now)
    assert notice.wait_ms < 20


def test_what_waits_and_what_is_told_is_bounded() -> None:
    line = Line(pace=0.000_01)
    line.add("first")
    line.begin()
    line.add(*(f"earlier {number}" for number in range(1_000)))
    line.serve(1_000)
    waiting, refused = crowd(line, MAX_WAITING + 100)
    assert len(waiting) == MAX_WAITING
    slow = measured(pace=2.0)
    _, refused = crowd(slow, 500)
    assert max(refused) == MAX_RETRY_SECONDS * 1_000

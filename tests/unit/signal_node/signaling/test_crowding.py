"""When a node says that it is taking in a crowd."""

from __future__ import annotations

from signal_node.signaling.crowding import Crowding


def test_a_node_at_leisure_is_not_crowded() -> None:
    crowding = Crowding()
    assert not crowding.crowded(0.0)
    for at in range(1_000):
        crowding.came(at, at)
        assert not crowding.crowded(at + 0.9)
        crowding.went(at, at + 0.9)
    assert not crowding.crowded(1_000.0)
    assert crowding.waiting == 0


def test_a_hello_that_waits_for_long_shows_a_crowd() -> None:
    crowding = Crowding()
    crowding.came("a", 10.0)
    assert not crowding.crowded(11.0)
    assert crowding.crowded(11.1)
    assert crowding.waiting == 1


def test_the_oldest_counts() -> None:
    crowding = Crowding()
    for at in (10.0, 10.5, 11.0):
        crowding.came(at, at)
    assert crowding.crowded(11.2)
    crowding.went(10.0, 10.9)
    assert not crowding.crowded(11.2)
    assert crowding.crowded(11.6)


def test_it_is_over_when_nobody_had_to_wait_for_ten_seconds() -> None:
    crowding = Crowding()
    crowding.came("a", 10.0)
    crowding.went("a", 12.0)
    assert crowding.crowded(21.9)
    assert not crowding.crowded(22.0)


def test_who_was_told_to_come_back_is_on_the_way() -> None:
    crowding = Crowding()
    crowding.turned_away(10.0, 15.0)
    crowding.turned_away(11.0, 1.0)
    assert crowding.crowded(34.9)
    assert not crowding.crowded(35.0)


def test_an_unknown_hello_that_goes_changes_nothing() -> None:
    crowding = Crowding()
    crowding.went("never came", 10.0)
    assert not crowding.crowded(10.0)

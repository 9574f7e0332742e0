"""The clock that rooms are decided by."""

from __future__ import annotations

import pytest

from signal_node.cluster.clock import SAMPLES, Clock

REDIS = 1_800_000_000.0


class Machine:
    """A machine whose time of day is off by so many seconds, and which has been up for 1,000."""

    def __init__(self, off: float = 0.0) -> None:
        self.up = 1_000.0
        self.clock = Clock(lambda: self.up, lambda: REDIS + off)

    def ask(self, redis: float, *, there: float = 0.0, back: float = 0.0) -> None:
        """Ask Redis, which says `redis`, so many seconds there and back."""
        asked = self.up
        self.up += there + back
        self.clock.learn(redis, asked, self.up)


@pytest.mark.parametrize("off", [-300.0, 0.0, 300.0])
def test_redis_decides_however_far_off_the_machine_is(off: float) -> None:
    machine = Machine(off)
    assert machine.clock.now() == (REDIS + off) * 1_000, "as the machine has it, until Redis was asked"
    machine.ask(REDIS)
    assert machine.clock.now() == REDIS * 1_000


def test_time_goes_on_between_two_looks() -> None:
    machine = Machine(off=77.0)
    machine.ask(REDIS)
    machine.up += 12.5
    assert machine.clock.now() == (REDIS + 12.5) * 1_000


def test_an_answer_that_took_long_is_wrong_by_half_of_that_at_most_and_a_quicker_one_counts() -> None:
    machine = Machine()
    machine.ask(REDIS, there=0.0, back=2.0)
    assert machine.clock.now() == (REDIS + 1.0) * 1_000, "it is two seconds later by now"
    machine.ask(REDIS + 2.0, there=0.0, back=0.1)
    assert machine.clock.now() == pytest.approx((REDIS + 2.05) * 1_000, abs=1)
    machine.ask(REDIS + 2.1, there=3.0, back=0.0)
    assert machine.clock.now() == pytest.approx((REDIS + 5.05) * 1_000, abs=1)


def test_what_was_learnt_long_ago_is_forgotten() -> None:
    machine = Machine()
    machine.ask(REDIS)
    for _ in range(SAMPLES):
        machine.ask(REDIS + 60.0, there=0.1, back=0.1)
    assert machine.clock.offset_seconds == pytest.approx(REDIS + 60.0 - (machine.up - 0.1), abs=1e-3)

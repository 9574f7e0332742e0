"""Cyclic garbage is collected in short looks; and connections leave none."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from keepline.ops.garbage import FULL_SECONDS, Garbage


class Knot:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """What a test has frozen must not stay so for the others."""
    yield
    gc.unfreeze()


def garbage() -> Garbage:
    return Garbage(0.0, lambda low, high: 1.0)


def test_what_has_survived_is_out_of_the_collectors_sight() -> None:
    before = gc.get_freeze_count()
    kept = [Knot() for _ in range(100)]
    garbage().tick(1.0)
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_cycle_that_was_frozen_is_found_within_the_hour() -> None:
    collector, knot = garbage(), Knot()
    seen = weakref.ref(knot)
    collector.tick(1.0)
    del knot
    gc.collect()
    collector.tick(FULL_SECONDS - 1)
    assert seen() is not None, "it is not looked at"
    collector.tick(FULL_SECONDS)
    assert seen() is None


def test_nodes_do_not_look_at_everything_at_the_same_time() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    collector, knot = Garbage(0.0, uniform), Knot()
    seen = weakref.ref(knot)
    del knot
    gc.freeze()
    collector.tick(FULL_SECONDS)
    assert asked == [(0.75, 1.25)]
    assert seen() is not None
    collector.tick(1.25 * FULL_SECONDS)
    assert seen() is None

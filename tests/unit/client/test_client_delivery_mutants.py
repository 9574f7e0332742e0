"""The checks of the delivery state machine are checked: each of these mistakes is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keepline.client.delivery import Delivery
from keepline.client.incoming import Incoming
from tests.unit.client.test_client_delivery import play, problems

SEEDS = range(1, 9)


def acknowledge_what_is_early(incoming: Incoming) -> tuple[str | None, int]:
    """What is held back, behind a gap, is acknowledged as if it had been delivered."""
    incoming._unacked = 0
    return incoming.stream, max([incoming._position, *incoming._early])


def deliver_twice(
    incoming: Incoming, stream: str, epoch: int, n: int, data: Any, now: float, take: Callable[..., list[Any]]
) -> list[Any]:
    """The duplicate filter is off."""
    known = n <= incoming._position
    return take(incoming, stream, epoch, n, data, now) + ([data] if known else [])


def deliver_at_once(
    incoming: Incoming, stream: str, epoch: int, n: int, data: Any, now: float, take: Callable[..., list[Any]]
) -> list[Any]:
    """The order buffer is off: what is early is delivered when it comes."""
    if n <= incoming._position or n in incoming._early:
        return take(incoming, stream, epoch, n, data, now) and []
    take(incoming, stream, epoch, n, data, now)
    return [data]


def never_again(delivery: Delivery, now: float) -> None:
    """Retransmission is off."""
    delivery._resend.clear()


MUTANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "acknowledgement before delivery": (Incoming, "take_ack", acknowledge_what_is_early),
    "duplicate filter off": (Incoming, "take", deliver_twice),
    "order buffer off": (Incoming, "take", deliver_at_once),
    "retransmission off": (Delivery, "_next_again", never_again),
}


def _play(seed: int) -> list[str]:
    return problems(play(seed, loss=0.3, doubling=0.3, reordering=0.3))


def test_without_a_mistake_nothing_is_found() -> None:
    assert [_play(seed) for seed in SEEDS] == [[]] * len(SEEDS)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, mutant = MUTANTS[name]
    original = getattr(owner, method)
    if method == "take":
        monkeypatch.setattr(owner, method, lambda *arguments: mutant(*arguments, original))
    else:
        monkeypatch.setattr(owner, method, mutant)
    assert any(_play(seed) for seed in SEEDS)

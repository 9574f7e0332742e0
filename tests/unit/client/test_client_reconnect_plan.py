import pytest

from keepline.client.close_codes import Close
from keepline.client.reconnect import ReconnectPlan
from keepline.ops.backoff import Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(clock: Clock | None = None, *, fresh_tokens: bool = False) -> ReconnectPlan:
    backoff = Backoff(0.25, 10.0, uniform=lambda low, high: high)
    return ReconnectPlan(backoff, clock or Clock(), fresh_tokens=fresh_tokens, stable_after=5.0)


def closed(code: int) -> Close:
    return Close(code, "")


def test_waits_double_up_to_the_cap() -> None:
    reconnect = plan()
    waits = [reconnect.after_failure() for _ in range(8)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_welcome_starts_the_waits_over() -> None:
    reconnect = plan()
    reconnect.after_failure()
    reconnect.after_failure()
    reconnect.welcomed()
    assert reconnect.after_close(closed(1006)) == 0.25


@pytest.mark.parametrize("code", [4400, 4403, 4409, 4413])
def test_final_closes(code: int) -> None:
    assert plan(fresh_tokens=True).after_close(closed(code)) is None


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4408, 4503, 4508, 4999])
def test_other_closes_come_back_with_backoff(code: int) -> None:
    assert plan().after_close(closed(code)) == 0.25


def test_a_server_that_names_a_wait_gets_it_and_the_jitter_comes_on_top() -> None:
    reconnect = plan()
    assert [reconnect.after_failure(3.0) for _ in range(3)] == [3.25, 3.5, 4.0]


def test_a_wait_beyond_reason_is_not_obeyed() -> None:
    assert plan().after_failure(86_400.0) == 600.25


@pytest.mark.parametrize(("code", "least"), [(4429, 1.0), (4508, 0.0), (1006, 0.0)])
def test_a_client_that_is_put_out_again_and_again_slows_down(code: int, least: float) -> None:
    clock = Clock()
    reconnect = plan(clock)
    waits = []
    for _ in range(6):
        reconnect.welcomed()
        clock.now += 4.9
        waits.append(reconnect.after_close(closed(code)))
    assert waits == [least + wait for wait in (0.25, 0.25, 0.25, 0.5, 1.0, 2.0)]


def test_what_ended_after_a_while_starts_the_waits_over() -> None:
    clock = Clock()
    reconnect = plan(clock)
    for _ in range(6):
        reconnect.welcomed()
        clock.now += 5.0
        assert reconnect.after_close(closed(4429)) == 1.25


def test_goodbye_names_the_time_counted_from_its_arrival() -> None:
    clock = Clock()
    reconnect = plan(clock)
    reconnect.goodbye(3.0)
    clock.now += 1.0
    assert reconnect.after_close(closed(4503)) == pytest.approx(2.0)
    assert reconnect.after_close(closed(4503)) == 0.25, "it holds for one attempt"


def test_goodbye_holds_when_the_node_dies_before_it_closes() -> None:
    clock = Clock()
    reconnect = plan(clock)
    reconnect.goodbye(3.0)
    clock.now += 9.0
    assert reconnect.after_close(closed(1006)) == 0.0


def test_a_fixed_token_that_is_refused_is_final() -> None:
    assert plan(fresh_tokens=False).after_close(closed(4401)) is None


def test_a_fresh_token_is_tried_once_and_again_after_a_welcome() -> None:
    reconnect = plan(fresh_tokens=True)
    assert reconnect.after_close(closed(4401)) == 0.0
    assert reconnect.after_close(closed(4401)) is None
    reconnect.welcomed()
    assert reconnect.after_close(closed(4401)) == 0.0

"""Who has which seat of a demo call."""

import uuid

from keepline.cli.demo.calls import CALL_SECONDS, MOST_CALLS, TAKEN_SECONDS, Calls, DemoCall

ALICE, BOB = uuid.UUID(int=1), uuid.UUID(int=2)
NOBODY, BOTH, HOST_ONLY = (False, False), (True, True), (True, False)


def opened(calls: Calls, now: float = 0.0) -> DemoCall:
    return calls.open("room-1", (ALICE, BOB), (0, 1), now)


def test_a_code_is_short_and_case_does_not_matter() -> None:
    calls = Calls()
    call = opened(calls)
    assert len(call.code) == 8
    assert calls.find(call.code.upper(), 1.0) is call
    assert calls.find("nothing", 1.0) is None


def test_the_visitor_who_opened_it_has_the_first_seat_and_the_next_one_the_other() -> None:
    call = opened(Calls())
    host = call.seats[0].key
    guest = call.seat(None, HOST_ONLY, 1.0)
    assert guest is not None
    assert guest.user == BOB
    assert call.seat(host, BOTH, 2.0) is call.seats[0]
    assert call.seat(guest.key, BOTH, 2.0) is guest


def test_a_third_visitor_gets_no_seat_and_throws_nobody_out() -> None:
    call = opened(Calls())
    guest = call.seat(None, HOST_ONLY, 0.0)
    assert guest is not None
    key = guest.key
    assert call.seat(None, BOTH, TAKEN_SECONDS + 1) is None
    assert call.seat("guessed", BOTH, TAKEN_SECONDS + 1) is None
    assert call.seat(key, BOTH, TAKEN_SECONDS + 1) is guest


def test_a_seat_that_nobody_has_come_to_yet_is_kept_for_a_moment() -> None:
    call = opened(Calls())
    assert call.seat(None, HOST_ONLY, 0.0) is not None
    assert call.seat(None, HOST_ONLY, TAKEN_SECONDS - 1) is None


def test_a_seat_that_was_left_goes_to_the_next_visitor_with_another_key() -> None:
    call = opened(Calls())
    first = call.seat(None, HOST_ONLY, 0.0)
    assert first is not None
    old = first.key
    second = call.seat(None, HOST_ONLY, TAKEN_SECONDS + 1)
    assert second is first
    assert second.key != old
    assert call.seat(old, BOTH, TAKEN_SECONDS + 2) is None


def test_the_key_of_the_button_is_good_once_and_for_its_seat_only() -> None:
    call = opened(Calls())
    host, guest = call.seats[0], call.seat(None, HOST_ONLY, 0.0)
    assert guest is not None
    key, kill_key = host.key, host.kill_key
    assert key is not None
    assert kill_key is not None
    assert call.spend_kill_key(key, "guessed") is None
    assert guest.key is not None
    assert call.spend_kill_key(guest.key, kill_key) is None
    following = call.spend_kill_key(key, kill_key)
    assert following not in (None, kill_key)
    assert call.spend_kill_key(key, kill_key) is None
    assert call.spend_kill_key(key, str(following)) is not None


def test_calls_are_forgotten_after_a_day_and_the_oldest_when_there_are_too_many() -> None:
    calls = Calls()
    oldest = opened(calls, 0.0)
    assert calls.find(oldest.code, CALL_SECONDS - 1) is oldest
    assert calls.find(oldest.code, CALL_SECONDS) is None
    many = [opened(calls, CALL_SECONDS) for _ in range(MOST_CALLS + 1)]
    assert calls.find(many[0].code, CALL_SECONDS) is None
    assert calls.find(many[-1].code, CALL_SECONDS) is many[-1]

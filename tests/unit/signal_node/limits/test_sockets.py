"""Sockets by address, and the rates that outlive a connection."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from signal_node.limits import rates as rates_module
from signal_node.limits.addresses import client_address, networks_of
from signal_node.limits.rates import USER_BURST_SECONDS, Rates
from signal_node.limits.sockets import TOLD, Sockets
from signal_node.protocol.token_bucket import Bucket
from signal_node.transport.budget import Allowances


def new_sockets(limit: int = 10_000, per_address: int = 3) -> Sockets:
    return Sockets(limit, per_address, [ip_network("10.0.0.0/8")])


def test_an_address_has_its_limit_and_a_few_more_that_are_told() -> None:
    sockets = new_sockets()
    came = [sockets.admits("192.0.2.1") for _ in range(3 + TOLD + 5)]
    assert came == [True] * (3 + TOLD) + [False] * 5
    assert sockets.admits("192.0.2.2"), "others have nothing to do with it"
    assert sockets.refused == {"address": 5}
    sockets.gone("192.0.2.1")
    assert sockets.admits("192.0.2.1")


def test_there_is_a_limit_for_all() -> None:
    sockets = new_sockets(limit=2)
    assert [sockets.admits(f"192.0.2.{n}") for n in range(3)] == [True, True, False]
    assert sockets.refused == {"full": 1}
    sockets.gone("192.0.2.0")
    assert sockets.admits("192.0.2.9")
    assert sockets.count == 2


def test_trusted_proxies_have_any_number() -> None:
    sockets = new_sockets()
    assert all(sockets.admits("10.1.2.3") for _ in range(1_000))


@pytest.mark.parametrize(("bits", "times"), [(64, 1), (56, 4), (48, 16)])
def test_larger_networks_have_wider_limits(bits: int, times: int) -> None:
    """A /48 of 65,536 networks cannot take another one each time."""
    sockets = new_sockets()
    came = 0
    for number in range(times * 3 + TOLD + 10):
        host = f"2001:db8:1:{number << 64 - bits & 0xFFFF if bits < 64 else 0:x}::{number:x}"
        if bits == 48:
            host = f"2001:db8:1:{number * 257 & 0xFFFF:x}::1"
        elif bits == 56:
            host = f"2001:db8:1:{number & 0xFF:x}::1"
        came += sockets.admits(host)
    assert came == times * 3 + TOLD


def test_what_is_gone_is_forgotten() -> None:
    sockets = new_sockets()
    for _ in range(3):
        sockets.admits("2001:db8::1")
    for _ in range(3):
        sockets.gone("2001:db8::1")
    assert (sockets.count, sockets._by_network) == (0, {})


def test_nat64_counts_by_the_address_inside() -> None:
    assert client_address("64:ff9b::c000:201", "", []) == "192.0.2.1"
    assert client_address("64:ff9b::c000:202", "", []) == "192.0.2.2"
    assert networks_of("64:ff9b::c000:201") == ("192.0.2.1",)


def test_the_networks_of_an_address() -> None:
    assert networks_of("2001:db8:1:2345::1") == (
        "2001:db8:1:2345::/64",
        "2001:db8:1:2300::/56",
        "2001:db8:1::/48",
    )
    assert networks_of("2001:db8:1:2345::/64") == networks_of("2001:db8:1:2345::1")
    assert networks_of(None) == networks_of("") == networks_of("nonsense") == ()


# --- rates ---


def new_rates(per_second: float = 10.0, burst: int = 30) -> Rates:
    return Rates(Allowances(), lambda: Bucket(50, 200), per_second, burst)


def test_a_user_logs_in_so_often() -> None:
    rates = new_rates(1_000, 1_000)
    waits = [rates.login_wait_ms("alice", f"192.0.2.{n}", 100.0) for n in range(USER_BURST_SECONDS + 1)]
    assert waits == [0] * USER_BURST_SECONDS + [1_000]
    assert rates.login_wait_ms("bob", "192.0.2.1", 100.0) == 0
    assert rates.login_wait_ms("alice", "192.0.2.1", 101.0) == 0


def test_an_address_logs_in_so_often_whoever_it_is() -> None:
    rates = new_rates()
    waits = [rates.login_wait_ms(f"user {n}", "192.0.2.1", 100.0) for n in range(31)]
    assert waits == [0] * 30 + [100]
    assert rates.login_wait_ms("other", "192.0.2.2", 100.0) == 0


def test_a_48_logs_in_no_more_than_sixteen_addresses() -> None:
    rates = new_rates()
    waits = [
        rates.login_wait_ms(f"user {n}", f"2001:db8:1:{n * 257 & 0xFFFF:x}::1", 100.0) for n in range(500)
    ]
    assert waits.index(next(filter(None, waits))) == 16 * 30


def test_a_new_connection_renews_neither_the_frames_of_a_user_nor_the_work_of_an_address() -> None:
    rates = new_rates()
    assert rates.frames_of("alice") is rates.frames_of("alice") is not rates.frames_of("bob")
    assert rates.budget_of("192.0.2.1") is rates.budget_of("192.0.2.1")


def test_who_was_seen_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MAX_KNOWN", 2)
    rates = new_rates()
    alice, bob = rates.frames_of("alice"), rates.frames_of("bob")
    assert rates.frames_of("alice") is alice
    rates.frames_of("carol")
    assert rates.frames_of("alice") is alice
    assert rates.frames_of("bob") is not bob

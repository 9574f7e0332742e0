"""Which address a connection counts as: of the socket, or of whom trusted proxies name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from signal_node.limits.addresses import MAX_FORWARDED, MAX_HOPS, client_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", None),
        (None, None),
        ("/run/socket", None),
    ],
)
def test_the_address_of_the_socket(peer: str | None, counted_as: str | None) -> None:
    assert client_address(peer, "", TRUSTED) == counted_as


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1"])
def test_nobody_but_a_trusted_proxy_may_say_who_else_it_is(peer: str) -> None:
    assert client_address(peer, "198.51.100.1", TRUSTED) == "192.0.2.1"
    assert client_address(peer, "198.51.100.1", []) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "counted_as"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("  198.51.100.1  ", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("203.0.113.9, 198.51.100.1, 10.0.0.7,10.0.0.8", "198.51.100.1"),
        ("10.9.9.9, 10.0.0.7", "10.9.9.9"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db8:1:2::7]:4711", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::7]", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7, fd00::1", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        # What is no address ends it: the last proxy that could be believed counts.
        ("unknown", PROXY),
        ("198.51.100.1, unknown", PROXY),
        ("198.51.100.1, , 10.0.0.7", "10.0.0.7"),
        ("198.51.100.1, 10.0.0.7, _hidden, 10.0.0.8", "10.0.0.8"),
        ("", PROXY),
        (",,,", PROXY),
        ("999.1.1.1", PROXY),
        ("[", PROXY),
        ("\0", PROXY),
    ],
)
def test_the_first_from_the_right_that_is_no_trusted_proxy(forwarded: str, counted_as: str) -> None:
    assert client_address(PROXY, forwarded, TRUSTED) == counted_as


def test_a_proxy_that_comes_by_ipv6_and_maps_ipv4_is_known_by_either() -> None:
    assert client_address("::ffff:10.0.0.1", "198.51.100.1", TRUSTED) == "198.51.100.1"
    assert client_address("fd00::1", "198.51.100.1", TRUSTED) == "198.51.100.1"


def test_a_chain_is_followed_so_far_and_no_further() -> None:
    chain = ["198.51.100.1", *[f"10.0.1.{hop}" for hop in range(MAX_HOPS)]]
    assert client_address(PROXY, ",".join(chain), TRUSTED) == "10.0.1.0"
    assert client_address(PROXY, ",".join(chain[:-1]), TRUSTED) == "198.51.100.1"


def test_of_a_long_header_the_end_counts_and_no_half_of_an_address() -> None:
    assert client_address(PROXY, "x" * MAX_FORWARDED + ",198.51.100.1", TRUSTED) == "198.51.100.1"
    assert client_address(PROXY, "1" + " " * (MAX_FORWARDED - 10) + "98.51.100.1", TRUSTED) == PROXY
    assert client_address(PROXY, "19" + "8.51.100.1".rjust(MAX_FORWARDED - 1), TRUSTED) == PROXY

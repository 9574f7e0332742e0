"""URLs of TURN servers."""

import pytest

from keepline.ops.ice_url import TurnServer, parse_turn


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("turn:turn.example", TurnServer("turn.example", 3478, "udp", False)),
        ("turn:turn.example:80?transport=tcp", TurnServer("turn.example", 80, "tcp", False)),
        ("turn:192.0.2.7:3478?transport=udp", TurnServer("192.0.2.7", 3478, "udp", False)),
        ("turn:[2001:db8::7]", TurnServer("2001:db8::7", 3478, "udp", False)),
        ("turns:turn.example", TurnServer("turn.example", 5349, "tcp", True)),
        ("turns:[2001:db8::7]:443?transport=udp", TurnServer("2001:db8::7", 443, "udp", True)),
    ],
)
def test_what_a_url_says(url: str, server: TurnServer) -> None:
    assert parse_turn(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "",
        "turn:",
        "turn://turn.example",
        "stun:turn.example",
        "http://turn.example",
        "turn:turn.example:",
        "turn:turn.example:none",
        "turn:turn.example:0",
        "turn:turn.example:65536",
        "turn:turn.example?transport=sctp",
        "turn:turn.example?transport=tcp&more",
        "turn:user@turn.example",
        "turn:2001:db8::7",
        "turn:turn.example\n",
    ],
)
def test_what_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"port|URL"):
        parse_turn(url)

"""ICE servers and TURN credentials."""

import hmac
from base64 import b64encode

from signal_node.ice import IceServers
from tests.unit.signal_node.calls import USER_1

TURN = ("turn:turn.example:3478", "turns:turn.example:5349")


def test_credentials_by_a_vector_made_with_openssl() -> None:
    """printf 1800003600:USER | openssl dgst -sha1 -hmac north -binary | base64"""
    servers = IceServers((), TURN, "north").for_user(USER_1, 1_800_000_000.9)
    assert servers == [
        {
            "urls": list(TURN),
            "username": f"1800003600:{USER_1}",
            "credential": "vbtlXfYw0/lo6mAn/MRSxlJbbS8=",
        }
    ]


def test_the_credential_belongs_to_the_user_and_the_time() -> None:
    ice = IceServers((), TURN, "north")
    (first,), (later,) = ice.for_user(USER_1, 0), ice.for_user(USER_1, 1)
    (other,) = ice.for_user("somebody-else", 0)
    assert len({first["credential"], later["credential"], other["credential"]}) == 3
    expected = hmac.digest(b"north", other["username"].encode(), "sha1")
    assert other["credential"] == b64encode(expected).decode()


def test_stun_needs_no_credentials_and_nothing_configured_is_nothing_told() -> None:
    assert IceServers(("stun:s.example",)).for_user(USER_1, 0) == [{"urls": ["stun:s.example"]}]
    assert IceServers().for_user(USER_1, 0) == []
    both = IceServers(("stun:s.example",), TURN, "north").for_user(USER_1, 0)
    assert [sorted(server) for server in both] == [["urls"], ["credential", "urls", "username"]]

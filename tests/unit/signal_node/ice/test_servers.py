"""ICE servers and TURN credentials, and their renewal in virtual time."""

import asyncio
import hmac
import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, cast

from signal_node.ice.servers import REFRESH_SECONDS, TTL_SECONDS, IceServers, run_refresh
from signal_node.protocol.session import Stage
from signal_node.transport.connections import Connections
from tests.helpers.virtual_time import run_virtual
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


@dataclass
class Session:
    stage: Stage
    user: str


@dataclass
class Client:
    """A connection that notes what it is sent, and when."""

    session: Session
    opened_at: float = 0.0
    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), json.loads(data)))


async def refreshed(clients: list[Client], seconds: float, ice: IceServers) -> bool:
    """Let the time pass; whether renewal goes on after that."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run_refresh(ice, cast(Connections, clients), now=lambda: 1e9 + loop.time()))
    done, _ = await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not done


def test_new_credentials_come_before_the_old_ones_expire_again_and_again() -> None:
    ice = IceServers(("stun:s.example",), TURN, "north")
    early, late = (
        Client(Session(Stage.READY, USER_1)),
        Client(Session(Stage.READY, "other"), opened_at=-1_000.0),
    )
    assert run_virtual(refreshed([early, late], 3 * REFRESH_SECONDS + 10, ice))
    for client in (early, late):
        given_until = client.opened_at + TTL_SECONDS
        for at, frame in client.sent:
            assert given_until - at > 600
            expires = given_until = at + TTL_SECONDS
            assert frame == {"type": "ice", "ice_servers": ice.for_user(client.session.user, 1e9 + at)}
            assert frame["ice_servers"][1]["username"].startswith(f"{int(1e9 + expires)}:")
    assert [round(at) for at, _ in late.sent] == [1_700, 4_400, 7_100]
    assert len(early.sent) == 3


def test_only_clients_that_are_let_in_are_sent_credentials() -> None:
    ice = IceServers((), TURN, "north")
    clients = [Client(Session(stage, USER_1)) for stage in (Stage.NEW, Stage.AUTHENTICATING, Stage.CLOSED)]
    assert run_virtual(refreshed(clients, 2 * REFRESH_SECONDS, ice))
    assert [client.sent for client in clients] == [[], [], []]


def test_many_that_are_due_at_once_all_get_theirs() -> None:
    clients = [Client(Session(Stage.READY, f"user-{number}")) for number in range(450)]
    run_virtual(refreshed(clients, REFRESH_SECONDS + 10, IceServers((), TURN, "north")))
    assert [len(client.sent) for client in clients] == [1] * 450


def test_without_turn_there_is_nothing_to_renew() -> None:
    client = Client(Session(Stage.READY, USER_1))
    assert not run_virtual(refreshed([client], 10, IceServers(("stun:s.example",))))
    assert client.sent == []

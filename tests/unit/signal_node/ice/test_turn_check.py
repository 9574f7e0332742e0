"""When TURN servers are asked for a relay, and what is kept of their answers, in virtual time."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

from aioice.stun import TransactionTimeout
from structlog.testing import capture_logs

from keepline.ops.ice_url import TurnServer
from signal_node.ice.servers import IceServers
from signal_node.ice.turn_check import TurnChecks
from tests.helpers.virtual_time import run_virtual

ONE, OTHER = "turn:one.example", "turns:other.example:443"
ICE = IceServers((), (ONE, OTHER), "north")


class Servers:
    """Gives relays as a server would; `refuse` says what it raises instead."""

    def __init__(self, refuse: Callable[[TurnServer], BaseException | None] = lambda _: None) -> None:
        self.asked: list[tuple[float, str, str]] = []
        self.refuse = refuse

    async def allocate(self, server: TurnServer, username: str, credential: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), server.host, username))
        assert credential
        error = self.refuse(server)
        if isinstance(error, TimeoutError):
            await asyncio.Event().wait()
        if error is not None:
            raise error


def checks(servers: Servers, seconds: float = 30, ice: IceServers = ICE) -> TurnChecks:
    return TurnChecks(ice, "node-1", seconds, allocate=servers.allocate, now=lambda: 1_800_000_000.0)


async def run_for(seconds: float, made: TurnChecks) -> None:
    task = asyncio.create_task(made.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_all_are_asked_every_so_often_with_credentials_of_the_nodes_own() -> None:
    servers = Servers()
    made = checks(servers)
    run_virtual(run_for(100, made))
    assert made.up == {ONE: True, OTHER: True}
    assert made.down == {}
    assert {username for _, _, username in servers.asked} == {"1800003600:check-node-1"}
    times = [at for at, host, _ in servers.asked if host == "one.example"]
    assert 3 <= len(times) <= 5
    assert all(24 <= later - earlier <= 36 for earlier, later in pairwise(times))


def test_one_that_fails_is_not_the_other() -> None:
    servers = Servers(lambda server: ConnectionRefusedError("refused") if server.tls else None)
    made = checks(servers)
    run_virtual(made.check())
    assert made.up == {ONE: True, OTHER: False}
    assert made.down == {OTHER: "refused"}


def test_silence_is_waited_for_five_seconds() -> None:
    made = checks(Servers(lambda _: TimeoutError()))

    async def timed() -> float:
        began = asyncio.get_running_loop().time()
        await made.check()
        return asyncio.get_running_loop().time() - began

    assert run_virtual(timed()) == 5
    assert made.down == {ONE: "does not answer", OTHER: "does not answer"}


def test_only_what_changed_is_logged() -> None:
    answers: list[BaseException | None] = [
        None,
        TransactionTimeout(),
        TransactionTimeout(),
        OSError("no way"),
        None,
    ]
    servers = Servers(lambda _: answers[0])
    made = checks(servers, ice=IceServers((), (ONE,), "north"))
    with capture_logs() as logs:
        while answers:
            run_virtual(made.check())
            answers.pop(0)
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("turn_gives_no_relay", "STUN transaction timed out"),
        ("turn_gives_no_relay", "no way"),
        ("turn_gives_relays", None),
    ]


def test_nobody_is_asked_who_cannot_be_or_when_it_is_off() -> None:
    servers = Servers()
    browsers_own = IceServers(
        (), ("turn:localhost", "turn:127.0.0.1:1", "turn:[::1]", "turns:a?transport=udp"), "north"
    )
    for made in (
        checks(servers, ice=IceServers()),
        checks(servers, ice=browsers_own),
        checks(servers, seconds=0),
    ):
        run_virtual(made.run())
        assert made.up == {}
    assert servers.asked == []

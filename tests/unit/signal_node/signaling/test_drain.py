"""The end of a node, in virtual time: who is sent away when, and how long it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from keepline.ops.tasks import Tasks
from signal_node.protocol import close_codes
from signal_node.protocol.session import Stage
from signal_node.signaling.drain import (
    FIRST_SHARE,
    LINGER_MS,
    QUIET_SECONDS,
    SPREAD_MS,
    Drain,
    Drains,
    DrainState,
)
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.transport.listener import Listener
from tests.helpers.virtual_time import run_virtual

WINDOW = 30.0


@dataclass
class SidesHeld:
    held: dict[str, int] = field(default_factory=dict)


@dataclass
class Session:
    stage: Stage = Stage.READY
    rooms: SidesHeld = field(default_factory=SidesHeld)

    def closed(self) -> bool:
        return self.stage is Stage.CLOSED


@dataclass
class WebSocket:
    connecting: bool = False


@dataclass(eq=False)
class Connection:
    """A client that answers a close after `answers_after` seconds; None: it never does."""

    node: FakeNode
    websocket: WebSocket = field(default_factory=WebSocket)
    answers_after: float | None = 0.0
    session: Session = field(default_factory=Session)
    leaving: bool = False
    replaced: bool = False
    log: list[tuple[float, Any]] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.note(json.loads(data))

    def close(self, close: close_codes.CloseCode) -> None:
        self.note(close)
        self.session.stage = Stage.CLOSED
        if self.answers_after is not None:
            asyncio.get_running_loop().call_later(self.answers_after, self.node.clients.here.pop, self, None)

    def abort(self) -> None:
        self.note("aborted")
        self.node.clients.here.pop(self, None)

    def note(self, what: object) -> None:
        self.log.append((round(asyncio.get_running_loop().time(), 3), what))


class Connections:
    def __init__(self) -> None:
        self.here: dict[Connection, None] = {}

    def __len__(self) -> int:
        return sum(not connection.websocket.connecting for connection in self.here)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.here))


class Rooms:
    def __init__(self) -> None:
        self.waiting = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def all_stored(self) -> None:
        await self.idle.wait()


class FakeNode:
    def __init__(self) -> None:
        self.clients = Connections()
        self.rooms = Rooms()
        self.negotiation_log = NegotiationLog()

    def connect(self, **options: Any) -> Connection:
        connection = Connection(self, **options)
        self.clients.here[connection] = None
        return connection


def drain_of(node: FakeNode, uniform: float) -> Drain:
    fake = cast(Any, node)
    return Drain(fake.clients, fake.rooms, node.negotiation_log.negotiated_at, lambda: uniform)


async def drained(node: FakeNode, hurry: asyncio.Event | None = None, uniform: float = 0.5) -> float:
    """Drain; returns how many seconds it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await drain_of(node, uniform).run(WINDOW, hurry or asyncio.Event())
    return round(loop.time() - began, 1)


def test_goodbyes_are_spread_over_most_of_the_window() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connections = [node.connect() for _ in range(10)]
        assert await drained(node) == 18.2
        assert sorted(connection.log[0][0] for connection in connections) == pytest.approx(
            [1.8 * number for number in range(10)]
        )
        for connection in connections:
            (said_at, goodbye), (closed_at, close) = connection.log
            assert goodbye == {
                "type": "goodbye",
                "reason": "draining",
                "reconnect_after_ms": SPREAD_MS // 2,
            }
            assert close is close_codes.DRAINING
            assert closed_at - said_at == pytest.approx((SPREAD_MS / 2 + LINGER_MS) / 1_000)

    run_virtual(scenario())


@pytest.mark.parametrize(("drawn", "told"), [(0.0, 0), (1.0, SPREAD_MS)])
def test_clients_are_told_when_to_come_back(drawn: float, told: int) -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect()
        await drained(node, uniform=drawn)
        assert connection.log[0][1]["reconnect_after_ms"] == told

    run_virtual(scenario())


def test_who_has_connected_elsewhere_is_told_so() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect(replaced=True)
        await drained(node)
        assert connection.log[1][1] is close_codes.REPLACED

    run_virtual(scenario())


def test_a_short_window_shortens_what_clients_are_told() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect()
        await drain_of(node, 1.0).run(2.0, asyncio.Event())
        assert connection.log[0][1]["reconnect_after_ms"] == 200
        assert connection.log[1] == (0.5, close_codes.DRAINING)

    run_virtual(scenario())


def test_calls_in_the_middle_of_a_negotiation_come_last() -> None:
    async def scenario() -> None:
        node = FakeNode()
        busy, *calm = [
            node.connect(session=Session(rooms=SidesHeld({f"room-{number}": 1}))) for number in range(4)
        ]
        now = asyncio.get_running_loop().time()
        node.negotiation_log.note("room-0", 1, "session", "offer", now)
        node.negotiation_log.note("room-1", 1, "session", "offer", now - QUIET_SECONDS)
        node.negotiation_log.note("room-2", 1, "session", "resumed", now)
        await drained(node)
        said_at = [connection.log[0][0] for connection in (busy, *calm)]
        assert said_at == [13.5, 4.5, 9.0, 13.5]

    run_virtual(scenario())


@pytest.mark.parametrize("stage", [Stage.NEW, Stage.AUTHENTICATING])
def test_who_has_not_been_welcomed_is_closed_without_goodbye(stage: Stage) -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect(session=Session(stage))
        await drained(node)
        assert connection.log == [(0.0, close_codes.DRAINING)]

    run_virtual(scenario())


def test_it_is_over_when_the_last_client_has_answered() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.connect(answers_after=23.0)
        assert await drained(node) == 25.0

    run_virtual(scenario())


def test_who_never_answers_is_dropped_at_the_end_of_the_window() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect(answers_after=None)
        assert await drained(node) == WINDOW
        assert connection.log[-1][1] == "aborted"
        assert connection.log[-1][0] == pytest.approx(WINDOW, abs=0.1)

    run_virtual(scenario())


@pytest.mark.parametrize("after", [0.0, 3.0, 22.0])
def test_a_second_signal_ends_it_at_once(after: float) -> None:
    async def scenario() -> None:
        node = FakeNode()
        connections = [node.connect(answers_after=None) for _ in range(10)]
        hurry = asyncio.Event()
        asyncio.get_running_loop().call_later(after, hurry.set)
        assert await drained(node, hurry) == after
        assert {connection.log[-1] for connection in connections} == {(after, "aborted")}

    run_virtual(scenario())


def test_what_waits_to_be_stored_is_waited_for() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.rooms.idle.clear()
        asyncio.get_running_loop().call_later(7.0, node.rooms.idle.set)
        assert await drained(node) == 7.0

    run_virtual(scenario())


def test_what_cannot_be_stored_is_given_up_at_the_end_of_the_window() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.rooms.idle.clear()
        assert await drained(node) == WINDOW

    run_virtual(scenario())


def test_there_is_always_a_moment_for_the_last_commits() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.connect(answers_after=None)
        node.rooms.idle.clear()
        asyncio.get_running_loop().call_later(WINDOW + 0.9, node.rooms.idle.set)
        assert await drained(node) == WINDOW + 0.9

    run_virtual(scenario())


def test_without_clients_there_is_nothing_to_wait_for() -> None:
    async def scenario() -> None:
        assert await drained(FakeNode()) == 0.0

    run_virtual(scenario())


def test_goodbyes_wait_until_load_balancers_know() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connections = [node.connect() for _ in range(10)]
        await drain_of(node, 0.0).run(WINDOW, asyncio.Event(), 5.0)
        assert [connection.log[0][0] for connection in connections] == pytest.approx(
            [5.0 + 1.3 * number for number in range(10)]
        )
        assert {connection.log[1][1] for connection in connections} == {close_codes.DRAINING}

    run_virtual(scenario())


def test_goodbyes_do_not_wait_for_long() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect()
        await drain_of(node, 0.0).run(WINDOW, asyncio.Event(), WINDOW)
        assert connection.log[0][0] == WINDOW * FIRST_SHARE

    run_virtual(scenario())


def test_whoever_is_still_to_do_the_handshake_is_left_to_be_refused_by_it() -> None:
    async def scenario() -> None:
        node = FakeNode()
        connection = node.connect(websocket=WebSocket(connecting=True), session=Session(Stage.NEW))
        assert await drained(node) == 0.0
        assert connection.log == []

    run_virtual(scenario())


# --- the port ---


class FakeDoor:
    """A port that notes when it was shut."""

    def __init__(self) -> None:
        self.opened = True
        self.shut_at: list[float] = []

    def close(self) -> None:
        self.opened = False
        self.shut_at.append(round(asyncio.get_running_loop().time(), 3))

    async def open(self) -> None:
        self.opened = True


class Port:
    """The drains of a node, by default without clients, and its port."""

    def __init__(self, linger: float = 5.0) -> None:
        self.node, self.listener = FakeNode(), FakeDoor()
        self.tasks = Tasks(lambda name, error: None)
        self.drains = Drains(
            "node-1",
            DrainState(),
            drain_of(self.node, 0.0),
            cast(Listener, self.listener),
            self.tasks,
            seconds=WINDOW,
            linger=linger,
        )

    @property
    def now(self) -> float:
        return round(asyncio.get_running_loop().time(), 1)

    def state(self) -> tuple[str, int]:
        report = self.drains.report()
        return report["state"], report["remaining_ms"]


@pytest.mark.parametrize(
    ("linger", "window", "shut_at"), [(5.0, None, 5.0), (5.0, 2.0, 2.0), (0.0, None, 0.0)]
)
def test_the_port_stays_open_for_a_part_of_the_window(
    linger: float, window: float | None, shut_at: float
) -> None:
    async def scenario() -> None:
        port = Port(linger)
        port.drains.begin(window)
        assert port.drains.state.active
        await asyncio.sleep(shut_at)
        assert port.listener.shut_at == [shut_at]
        await asyncio.sleep(60.0)
        assert port.listener.shut_at == [shut_at]
        await port.tasks.aclose()

    run_virtual(scenario())


def test_a_node_is_drained_when_nobody_is_there_and_nobody_can_come() -> None:
    async def scenario() -> None:
        port = Port()
        assert port.state() == ("ready", 0)
        port.drains.begin()
        await asyncio.sleep(4.5)
        assert port.state() == ("draining", 25_500)
        await asyncio.sleep(0.5)
        assert port.state() == ("drained", 0)
        await port.tasks.aclose()

    run_virtual(scenario())


@pytest.mark.parametrize("after", [1.0, 10.0])
def test_a_drain_that_is_undone_leaves_the_port_open(after: float) -> None:
    async def scenario() -> None:
        port = Port()
        port.drains.begin()
        await asyncio.sleep(after)
        await port.drains.undo()
        assert (port.listener.opened, port.state()) == (True, ("ready", 0))
        await asyncio.sleep(60.0)
        assert port.listener.opened
        port.drains.begin()
        await asyncio.sleep(4.9)
        assert port.listener.opened, "it begins anew"
        await port.tasks.aclose()

    run_virtual(scenario())


def test_a_node_without_clients_ends_when_load_balancers_know() -> None:
    async def scenario() -> None:
        port = Port()
        await port.drains.stop()
        assert (port.now, port.listener.opened) == (5.0, False)

    run_virtual(scenario())


def test_a_node_that_was_drained_before_ends_at_once() -> None:
    async def scenario() -> None:
        port = Port()
        port.drains.begin()
        await asyncio.sleep(10.0)
        await port.drains.stop()
        assert (port.now, port.listener.opened) == (10.0, False)

    run_virtual(scenario())


def test_a_node_that_is_told_to_end_while_it_drains_shuts_the_port_when_it_was_to_be() -> None:
    async def scenario() -> None:
        port = Port()
        port.drains.begin()
        await asyncio.sleep(2.0)
        await port.drains.stop()
        assert (port.now, port.listener.shut_at[0]) == (5.0, 5.0)

    run_virtual(scenario())


@pytest.mark.parametrize("clients", [0, 3])
def test_a_second_signal_shuts_the_port_at_once(clients: int) -> None:
    async def scenario() -> None:
        port = Port()
        for _ in range(clients):
            port.node.connect()
        asyncio.get_running_loop().call_later(1.0, port.drains.state.hurry.set)
        await port.drains.stop()
        assert (port.now, port.listener.shut_at) == (1.0, [1.0])

    run_virtual(scenario())

"""Limits by address in one node: what its clients are told, and how it decides alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError

from keepline.ops.redis.client import Client
from signal_node.limits import failed_logins
from signal_node.limits.failed_logins import ANSWER_SECONDS, FailedLogins
from signal_node.limits.open_connections import OpenConnections
from signal_node.limits.refusals import RETRY_AFTER_MS, Refusals
from signal_node.protocol.effects import Authenticate
from signal_node.protocol.session import Session, SessionLimits
from signal_node.transport.connections import LIMITED_SECONDS
from signal_node.transport.events import Opened
from signal_node.transport.websocket import WebSocket
from tests.helpers.virtual_time import run_virtual
from tests.unit.signal_node.calls import ROOM, T0
from tests.unit.signal_node.protocol.test_session import text, told
from tests.unit.signal_node.sockets import Browser, Notes, Pipe, StillLoop, new_clients, new_limits

ADDRESS = "198.51.100.7"
LIMIT = 3
WINDOW_MS = 60_000


class Away:
    """A Redis that refuses each command, or lets it wait for ever; counts them."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.asked = 0

    def pipeline(self, *, transaction: bool) -> Away:
        return self

    async def __aenter__(self) -> Away:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def execute_command(self, *command: object) -> None:
        self.asked += 1

    async def execute(self, *, raise_on_error: bool) -> object:
        if self.hangs:
            await asyncio.Event().wait()
        raise ConnectionError("away")


def alone(redis: Away, now: Callable[[], int] = lambda: T0) -> FailedLogins:
    return FailedLogins(cast(Client, redis), 16, LIMIT, WINDOW_MS, now)


class Node(Notes):
    """Handles connections as a node does, which come from one address."""

    def __init__(self, at_most: int) -> None:
        super().__init__()
        self.loop = StillLoop()
        clients = self.clients = new_clients(self.loop)
        refusals = Refusals(clients)
        connections = OpenConnections(
            cast(Client, Away()),
            16,
            lambda: "here@1",
            at_most,
            others=set,
            now=lambda: T0,
            refuse=refusals.session_too_many,
        )
        self.limits = new_limits(refusals, clients, connections, alone(Away()), at_most)

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self.limits.opened(connection)

    def closed(self, connection: Any) -> None:
        super().closed(connection)
        self.limits.closed(connection)

    def browser(self) -> Browser:
        assert self.clients is not None
        return Browser(self.clients, self, self.loop)

    def sweep(self, seconds: float) -> None:
        assert self.clients is not None
        self.loop.now += seconds
        for connection in self.clients:
            self.clients.sweep(connection, self.loop.now)
        self.loop.tick()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(Pipe, "get_extra_info", lambda *_: (ADDRESS, 4711))
    return Node(at_most=2)


def refusal(request_id: str | None = None, retry_after_ms: int = RETRY_AFTER_MS) -> dict[str, Any]:
    named = {} if request_id is None else {"id": request_id}
    message = "too many connections from this address"
    error = {"type": "error", "code": "rate_limited", "message": message, "retry_after_ms": retry_after_ms}
    return {**error, **named}


# --- what clients are told ---


def test_a_connection_too_many_is_refused_when_it_says_hello(node: Node) -> None:
    node.browser()
    node.browser()
    third = node.browser()
    assert third.frames() == []
    third.send({"type": "hello", "id": "1", "token": "t"})
    assert third.frames() == [refusal("1"), 4429]
    assert node.begun == []
    assert node.limits.refusals.counts.connections == 1


def test_an_address_that_is_over_its_budget_is_read_later_and_a_new_connection_renews_nothing(
    node: Node,
) -> None:
    first = node.browser()
    assert not first.pipe.paused
    first.drop()
    node.limits.rates.budget_of(ADDRESS).spend(1e6, node.loop.now)
    assert node.browser().pipe.paused


def test_a_new_connection_does_not_renew_the_frames_of_its_user(node: Node) -> None:
    for codes in ([], ["rate_limited"]):
        browser = node.browser()
        browser.is_ready("alice")
        node.limits.admit_user(browser.connection, "alice")
        browser.connection.session.rooms.hold(ROOM, 1)
        browser.send(*[{"type": "typing", "room": ROOM}] * (1 if codes else 200))
        for _ in range(10):
            node.loop.tick()
        assert [frame["code"] for frame in browser.frames()] == codes
        browser.drop()


def test_one_that_says_nothing_is_refused_soon(node: Node) -> None:
    others = [node.browser(), node.browser()]
    third = node.browser()
    node.sweep(LIMITED_SECONDS)
    assert third.frames() == []
    node.sweep(0.1)
    assert third.frames() == [refusal(), 4429]
    assert [other.frames() for other in others] == [[], []]


def test_one_that_closes_makes_room_for_another_and_one_that_was_refused_does_not(node: Node) -> None:
    first, _, third = node.browser(), node.browser(), node.browser()
    third.drop()
    fourth = node.browser()
    fourth.send({"type": "hello", "id": "4", "token": "t"})
    assert fourth.frames() == [refusal("4"), 4429]
    first.drop()
    fifth = node.browser()
    fifth.send({"type": "hello", "token": "t"})
    assert fifth.frames() == []
    assert isinstance(node.begun[-1], Authenticate)


@pytest.mark.parametrize(("bits", "times"), [(56, 4), (48, 16)])
def test_connections_of_a_network_of_ipv6_are_counted_together(
    node: Node, monkeypatch: pytest.MonkeyPatch, bits: int, times: int
) -> None:
    hosts = itertools.count(1)
    monkeypatch.setattr(
        Pipe, "get_extra_info", lambda *_: (f"2001:db8:0:{next(hosts) << (56 - bits):x}::1", 0)
    )
    browsers = [node.browser() for _ in range(2 * times + 1)]
    assert [one.connection.session._refusal is None for one in browsers] == [True] * 2 * times + [False]


async def test_failures_of_a_network_of_ipv6_are_counted_together(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = itertools.count(1)
    monkeypatch.setattr(Pipe, "get_extra_info", lambda *_: (f"2001:db8::{next(hosts):x}:0:0:0:1", 0))
    for _ in range(4 * LIMIT):
        one = node.browser()
        await node.limits.login_failed(one.connection)
        one.drop()
    waits = [await node.limits.logins.wait_ms(f"2001:db8::/{bits}") for bits in (64, 56, 48)]
    assert waits == [0, WINDOW_MS, 0]


async def nobody() -> bool:
    return False


async def test_a_socket_without_an_address_is_not_counted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipe, "get_extra_info", lambda *_: None)
    browsers = [node.browser() for _ in range(5)]
    for browser in browsers:
        assert browser.connection.address is None
        await node.limits.admit(browser.connection, nobody)
        await node.limits.login_failed(browser.connection)
        browser.drop()
    assert node.limits.refusals.counts.connections == 0


def test_a_hello_under_way_is_refused_under_its_own_id() -> None:
    session = Session("s", SessionLimits())
    session.receive(text("hello", id="7"), 0.0)
    assert told(session.limited("too much", 42)) == [
        {"type": "error", "id": "7", "code": "rate_limited", "message": "too much", "retry_after_ms": 42},
        4429,
    ]
    assert session.closed()
    assert session.limited("too much", 42) == ()


def test_a_session_without_a_limit_is_not_dismissed() -> None:
    session = Session("s", SessionLimits())
    assert session.dismissed() == ()
    assert not session.closed()


def test_all_headers_of_proxies_are_read_in_order() -> None:
    handshake = (
        b"GET /v1 HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"X-Forwarded-For: 203.0.113.1, 198.51.100.1\r\nx-forwarded-for: 10.0.0.7\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
    )
    assert WebSocket(1_024).receive(handshake) == [Opened(None, "203.0.113.1, 198.51.100.1,10.0.0.7")]


# --- without Redis ---


async def test_a_node_alone_asks_redis_once_in_a_while_and_never_about_a_blocked_address() -> None:
    clock, redis = itertools.count(T0, 1), Away()
    logins = alone(redis, lambda: next(clock))
    for attempt in range(LIMIT):
        assert await logins.wait_ms(ADDRESS) == 0
        await logins.failed(ADDRESS, f"{attempt}")
    assert 0 < await logins.wait_ms(ADDRESS) < WINDOW_MS
    assert await logins.wait_ms("198.51.100.8") == 0
    assert redis.asked == 1


async def test_more_failures_than_the_limit_count_from_the_newest() -> None:
    now = T0
    logins = alone(Away(), lambda: now)
    for attempt in range(2 * LIMIT):
        await logins.failed(ADDRESS, f"{attempt}")
        now += 1_000
    assert await logins.wait_ms(ADDRESS) == WINDOW_MS - LIMIT * 1_000


async def test_what_the_window_has_left_behind_is_forgotten() -> None:
    now = T0
    logins = alone(Away(), lambda: now)
    await logins.failed(ADDRESS, "a")
    now += WINDOW_MS
    for attempt in "bc":
        await logins.failed(ADDRESS, attempt)
    assert await logins.wait_ms(ADDRESS) == 0
    await logins.failed(ADDRESS, "d")
    assert await logins.wait_ms(ADDRESS) == WINDOW_MS


async def test_so_many_addresses_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_logins, "MAX_ADDRESSES", 2)
    logins = alone(Away())
    for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1", "198.51.100.3"):
        for attempt in range(LIMIT):
            await logins.failed(address, f"{address} {attempt}")
    waits = [await logins.wait_ms(f"198.51.100.{number}") for number in (1, 2, 3)]
    assert waits == [WINDOW_MS, 0, WINDOW_MS]


def test_a_redis_that_does_not_answer_holds_up_the_first_hello_for_a_moment_and_the_next_not_at_all() -> None:
    async def hellos() -> list[float]:
        loop = asyncio.get_running_loop()
        logins = alone(Away(hangs=True), lambda: T0 + round(loop.time() * 1_000))
        return [await seconds(logins.wait_ms(ADDRESS)) for _ in range(3)]

    assert run_virtual(hellos()) == [pytest.approx(ANSWER_SECONDS), 0.0, 0.0]


def test_a_redis_that_does_not_answer_holds_up_nobody_who_opens_a_connection_for_long() -> None:
    async def opens() -> list[float]:
        loop = asyncio.get_running_loop()
        refused: list[str] = []
        connections = OpenConnections(
            cast(Client, HangingPipelines()),
            16,
            lambda: "here@1",
            2,
            others=set,
            now=lambda: T0 + round(loop.time() * 1_000),
            refuse=refused.append,
        )
        task = asyncio.create_task(connections.run())
        took = []
        for session in ("a", "b"):
            assert connections.opened(ADDRESS, session)
            took.append(await seconds(connections.answered(ADDRESS, session)))
        assert not connections.opened(ADDRESS, "c")
        assert refused == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return took

    assert run_virtual(opens()) == [pytest.approx(ANSWER_SECONDS), 0.0]


def test_addresses_whose_connections_close_while_redis_is_asked_are_kept_until_it_answers() -> None:
    async def closes() -> bool:
        loop = asyncio.get_running_loop()
        connections = OpenConnections(
            cast(Client, HangingPipelines()),
            16,
            lambda: "here@1",
            2,
            others=set,
            now=lambda: T0 + round(loop.time() * 1_000),
            refuse=lambda _: None,
        )
        task = asyncio.create_task(connections.run())
        for address in (ADDRESS, "198.51.100.8"):
            assert connections.opened(address, address)
        await asyncio.sleep(0)
        for address in (ADDRESS, "198.51.100.8"):
            connections.closed(address, address)
        await asyncio.wait([task], timeout=10 * ANSWER_SECONDS)
        ended = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return ended

    assert not run_virtual(closes())


class HangingPipelines:
    """A Redis that answers no pipeline."""

    def pipeline(self, **_: object) -> HangingPipelines:
        return self

    async def __aenter__(self) -> HangingPipelines:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def evalsha(self, *_: object) -> None:
        return

    async def execute(self, **_: object) -> None:
        await asyncio.Event().wait()


async def seconds(work: Awaitable[object]) -> float:
    """How long it takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work
    return loop.time() - began

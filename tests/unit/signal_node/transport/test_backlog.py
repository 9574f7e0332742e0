"""Sockets that wait to be read: who is taken when, and who is refused without having been read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from signal_node.transport.backlog import PATIENCE_SECONDS, TAKEN, Backlog, refusal
from tests.storm.wire import Head, Wire

REQUEST = b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Loop:
    """A loop whose ticks and whose time are ours."""

    def __init__(self) -> None:
        self.now = 10.0
        self.soon: list[object] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: object) -> None:
        self.soon.append(callback)

    def tick(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            assert callable(callback)
            callback()


class Line:
    """A backlog, what became of its sockets, and the other ends of them."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.taken: list[str | None] = []
        self.gone: list[str | None] = []
        self.full: float | None = None
        self.sockets: list[socket.socket] = []
        loop: asyncio.AbstractEventLoop = self.loop  # type: ignore[assignment]
        self.backlog = Backlog(
            loop, lambda client, host: self.taken.append(host), self.gone.append, lambda: self.full
        )

    def come(self, name: str, says: bytes = b"") -> socket.socket:
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        ours.setblocking(False)
        theirs.settimeout(5)
        theirs.sendall(says)
        self.backlog.add(ours, name)
        return theirs

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.tick()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    for one in line.sockets:
        one.close()


def test_a_few_are_taken_in_each_tick_in_order(line: Line) -> None:
    names = [str(number) for number in range(2 * TAKEN + 1)]
    for name in names:
        line.come(name, REQUEST)
    line.tick()
    assert line.taken == names[:TAKEN]
    line.tick(2)
    assert line.taken == names
    assert not line.loop.soon, "nothing is planned when nobody waits"


def test_who_has_gone_meanwhile_is_not_taken(line: Line) -> None:
    for number in range(TAKEN):
        line.come(f"first {number}")
    line.come("gone").close()
    line.come("there", REQUEST)
    line.tick()
    line.loop.now += 2 * PATIENCE_SECONDS
    line.tick()
    assert line.taken[TAKEN:] == ["there"]
    assert line.gone == ["gone"]


def test_who_has_waited_is_refused_when_the_node_is_full(line: Line) -> None:
    client = line.come("late", REQUEST)
    line.full = 6.2
    line.loop.now += 2 * PATIENCE_SECONDS
    line.tick()
    assert (line.taken, line.gone) == ([], ["late"])
    answer = b""
    while chunk := client.recv(4_096):
        answer += chunk
    assert list(Wire().receive(answer)) == [Head(503, 7.0)]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_who_has_just_come_or_has_said_nothing_is_not_refused(line: Line) -> None:
    line.full = 6.2
    line.come("just come", REQUEST)
    line.tick()
    line.come("silent")
    line.loop.now += 2 * PATIENCE_SECONDS
    line.tick()
    assert (line.taken, line.gone) == (["just come", "silent"], [])


def test_a_refusal_asks_for_a_second_at_least() -> None:
    assert b"Retry-After: 1\r\n" in refusal(0.02)

"""Admission: a bounded number is served at a time, and whoever has gone is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest
from msgspec import UNSET

from signal_node.protocol.effects import Authenticate, JoinRequest
from signal_node.signaling.admission import AT_ONCE, CROWDED, Admission
from signal_node.signaling.admission_queue import FIRST_NOTICE_SECONDS, Line
from signal_node.signaling.login import Hello, Login
from signal_node.signaling.requests import Join, Requests
from signal_node.signaling.work import Work
from signal_node.transport.connection import Connection
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import ROOM

PATIENCE = 8.0


class Door:
    """An admission with a clock of its own; whoever is served stays so until `may_end`."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.now = 100.0
        self.may_end = asyncio.Event()
        self.notes: list[object] = []
        self.admission = Admission(Work(asyncio.get_running_loop()), patience, lambda: self.now)

    def come(self, *names: str, line: Line = Line.NEW) -> list[Guest]:
        guests = [Guest(self, name, line) for name in names]
        for guest in guests:
            self.admission.ask(guest)
        return guests

    async def fill(self) -> None:
        """Let as many come as are served at a time."""
        self.come(*(f"first {number}" for number in range(AT_ONCE)))
        await eventually(lambda: len(self.notes) == AT_ONCE)
        self.notes.clear()


@dataclass(eq=False)
class Guest:
    """A visit that notes what becomes of it."""

    door: Door
    name: str
    line: Line
    connection: Connection = field(default_factory=lambda: cast(Connection, object()))

    async def serve(self) -> None:
        self.door.notes.append(self.name)
        await self.door.may_end.wait()

    def refuse(self, message: str, retry_after_ms: int) -> None:
        self.door.notes.append((self.name, message, retry_after_ms))

    def tell_queued(self, ahead: int, wait_ms: int) -> None:
        self.door.notes.append((self.name, ahead, wait_ms))


async def test_so_many_are_served_and_then_the_others_in_order() -> None:
    door = Door()
    await door.fill()
    door.come("new")
    door.come("back", line=Line.RESUME)
    door.come("join", line=Line.JOIN)
    assert door.admission.crowd_waits()
    assert door.notes == []
    door.may_end.set()
    await eventually(lambda: door.notes == ["join", "back", "new"])
    assert not door.admission.crowd_waits()
    assert door.admission.crowding.waiting == 0


async def test_whoever_has_gone_leaves_the_queue() -> None:
    door = Door()
    await door.fill()
    gone, _ = door.come("gone", "there")
    door.admission.gone(gone.connection)
    assert len(door.admission.queue) == 1
    door.may_end.set()
    await eventually(lambda: door.notes == ["there"])
    assert door.admission.crowding.waiting == 0


async def test_who_cannot_be_served_in_time_is_told_so_and_when_to_come() -> None:
    door = Door(patience=0.001)
    await door.fill()
    door.come("late")
    ((name, message, retry_after_ms),) = cast(list[tuple[str, str, int]], door.notes)
    assert (name, message) == ("late", CROWDED)
    assert retry_after_ms > 0
    assert door.admission.counts.postponed == 1
    assert door.admission.crowding.crowded(door.now), "it is on its way"
    door.may_end.set()


async def test_handshakes_are_refused_when_not_even_those_who_come_back_can_be_served() -> None:
    door = Door()
    await door.fill()
    assert door.admission.turn_away() is None
    door.admission.queue.pace.seconds = 1.0
    seconds = door.admission.turn_away()
    assert seconds is not None
    assert seconds == pytest.approx(0.75 * AT_ONCE, rel=0.1)
    assert door.admission.counts.handshakes == 1
    door.may_end.set()


async def test_who_waits_is_told_so() -> None:
    door = Door()
    await door.fill()
    door.come("waits")
    door.admission.tell(door.now + FIRST_NOTICE_SECONDS)
    assert door.notes == [("waits", 0, pytest.approx(AT_ONCE, rel=0.1))]
    door.may_end.set()


def test_which_line_is_whose() -> None:
    connection = cast(Connection, None)
    login, requests = cast(Login, None), cast(Requests, None)
    assert Join(requests, connection, JoinRequest(ROOM, UNSET)).line is Line.JOIN
    assert Hello(login, connection, Authenticate("t", "secret", UNSET)).line is Line.RESUME
    assert Hello(login, connection, Authenticate("t", None, UNSET)).line is Line.NEW

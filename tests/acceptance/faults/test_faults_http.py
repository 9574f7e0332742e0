"""The HTTP API while Redis does not answer: refused soon, and not carried out when the caller has given up."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.helpers.cluster import HttpFailed
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

SOON_SECONDS = 4.0


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet(nodes=1) as fleet:
        yield fleet


async def refused(fleet: Fleet, user: uuid.UUID) -> bool:
    began = time.monotonic()
    with pytest.raises(HttpFailed) as failed:
        await fleet.open_room(user, uuid.uuid4())
    assert failed.value.status == 503
    assert failed.value.body["error"]["retry_after_ms"] > 0
    assert time.monotonic() - began < SOON_SECONDS
    return True


async def test_a_room_that_was_refused_is_not_opened_later(fleet: Fleet) -> None:
    os.kill(fleet.valkey.pid, signal.SIGSTOP)
    try:
        # What was on its way when Redis fell silent, nobody can call back.
        await refused(fleet, uuid.uuid4())
        alice = uuid.uuid4()
        for _ in range(3):
            await refused(fleet, alice)
    finally:
        os.kill(fleet.valkey.pid, signal.SIGCONT)

    async def opened() -> str:
        return str((await fleet.open_room(alice, uuid.uuid4()))["room_id"])

    async def opens() -> str | None:
        try:
            return await opened()
        except HttpFailed:
            return None

    room = await eventually(opens, timeout=20.0, interval=0.2, what="a room can be opened again")
    rooms = (await fleet.api("GET", f"/v1/rooms?user={alice}"))["rooms"]
    assert [found["room_id"] for found in rooms] == [room]

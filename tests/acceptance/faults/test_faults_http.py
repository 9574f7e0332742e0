"""The HTTP API while Redis does not answer: refused soon, and not carried out when the caller has given up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.helpers.cluster import HttpFailed
from tests.helpers.fleet import Fleet, paused, running_fleet
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_SECONDS = 4.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
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
        alice = uuid.uuid4()  # also what is on its way when Redis falls silent comes too late
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


async def rooms_of(fleet: Fleet, user: uuid.UUID) -> list[str]:
    return [found["room_id"] for found in (await fleet.api("GET", f"/v1/rooms?user={user}"))["rooms"]]


async def test_what_was_asked_of_a_node_that_stood_still_is_not_done_when_it_goes_on(fleet: Fleet) -> None:
    await fleet.until_ready()
    alice = uuid.uuid4()
    body = {"user_1": str(alice), "user_2": str(uuid.uuid4())}
    headers = {"Authorization": f"Bearer {fleet.line['service_key']}"}
    with paused(fleet.programs[0].pid):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                fleet.http.post(f"{fleet.nodes[0].http}/v1/rooms", json=body, headers=headers), 1.0
            )
        await asyncio.sleep(0)  # the connection is closed
    await fleet.until_ready()
    bob = str(uuid.uuid4())
    opened = await opened_by_key(fleet, {"user_1": bob, "user_2": str(uuid.uuid4())}, "order 1")
    assert await rooms_of(fleet, uuid.UUID(bob)) == [opened]
    assert await rooms_of(fleet, alice) == []


async def test_a_room_is_not_ended_later_and_a_key_opens_one_room(fleet: Fleet) -> None:
    alice = uuid.uuid4()
    body = {"user_1": str(alice), "user_2": str(uuid.uuid4())}
    room = await opened_by_key(fleet, body)
    os.kill(fleet.valkey.pid, signal.SIGSTOP)
    try:
        with pytest.raises(HttpFailed) as failed:
            await fleet.end_room(room)
        assert failed.value.status == 503
    finally:
        os.kill(fleet.valkey.pid, signal.SIGCONT)
    assert await opened_by_key(fleet, body) == room
    assert (await fleet.room(room))["status"] == "active"
    assert await rooms_of(fleet, alice) == [room]
    assert (await fleet.end_room(room))["ended_reason"] == "deleted"
    status, _ = await open_by_key(fleet, body | {"user_1": str(uuid.uuid4())})
    assert status == 409


async def open_by_key(fleet: Fleet, body: dict[str, str], key: str = "order 7") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {fleet.line['service_key']}", "Idempotency-Key": key}
    async with fleet.http.post(f"{fleet.nodes[0].http}/v1/rooms", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def opened_by_key(fleet: Fleet, body: dict[str, str], key: str = "order 7") -> str:
    """Ask until the node serves again, as a backend does."""

    async def asked() -> str:
        status, answer = await open_by_key(fleet, body, key)
        return str(answer["room_id"]) if status == 201 else ""

    return await eventually(asked, timeout=20.0, interval=0.2, what="a room is opened")

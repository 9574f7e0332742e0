"""What operators ask of a node, on a real loopback server: its drain, undone and done, and what it has in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from keepline.ops import http
from keepline.ops.health import Health
from keepline.ops.tasks import Tasks
from keepline.room.record import Room
from keepline.room.rules import Rules
from signal_node.http.node_api import NodeApi
from signal_node.http.repairs import Repairs
from signal_node.signaling.drain import Drain, Drains, DrainState
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.transport.listener import Listener
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import ROOM, SESSION_1, met

NODE = "node-1"
KEY = "a service key, 16 bytes or more"


class Rooms:
    waiting = 0

    def __init__(self) -> None:
        self.known = {ROOM: met()}

    def ids(self) -> list[str]:
        return [*self.known, "left lately"]

    def get(self, room_id: str) -> Room | None:
        return self.known.get(room_id)

    def at_rest(self, room_id: str) -> Room | None:
        return self.known.get(room_id)

    async def all_stored(self) -> None:
        return


class FakeNode:
    """A node without clients, whose door is a real socket."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.rooms = Rooms()
        self.negotiation_log = NegotiationLog()

    def accept(self, host: str | None) -> asyncio.Protocol:
        return asyncio.Protocol()

    def ids(self) -> list[str]:
        return [SESSION_1]

    def has(self, session: str) -> bool:
        return session == SESSION_1


class Harness:
    """The routes of one node, the socket for its clients, and who asks."""

    def __init__(self, node: FakeNode, listener: Listener, drains: Drains) -> None:
        self.node, self.listener, self.drains = node, listener, drains
        self.url = ""
        self.session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: bytes = b"", key: str = KEY) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self.session.request(method, self.url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    node = FakeNode()
    listener = Listener(node.accept, "127.0.0.1", 0)
    tasks = Tasks(lambda name, error: None)
    fake, log = cast(Any, node), node.negotiation_log
    drain = Drain(fake.clients, fake.rooms, log.negotiated_at, lambda: 0.5)
    drains = Drains(NODE, DrainState(), drain, listener, tasks, seconds=30.0, linger=0.0)
    await listener.open()
    found = Harness(node, listener, drains)
    repairs = Repairs(NODE, fake, fake, fake, fake, fake, fake, fake, fake, Rules())
    api = NodeApi(
        NODE,
        fake,
        fake.rooms,
        log,
        drains,
        repairs,
        KEY,
        status=lambda: {"state": "ready"},
        now=lambda: 1_000,
    )
    routes = api.routes()
    app = http.create_app(Health(lambda: 0.0), CollectorRegistry(), routes)
    timeout = aiohttp.ClientTimeout(total=10)
    async with http.serve(app, "127.0.0.1", 0) as (host, port), aiohttp.ClientSession(timeout=timeout) as web:
        found.url, found.session = f"http://{host}:{port}", web
        yield found
    await tasks.aclose()
    listener.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/node"),
        ("GET", f"/v1/node/rooms/{ROOM}"),
        ("GET", "/v1/node/drain"),
        ("POST", "/v1/node/drain"),
        ("DELETE", "/v1/node/drain"),
        ("POST", "/v1/node/repairs"),
    ],
)
async def test_nothing_goes_without_the_key(harness: Harness, method: str, path: str) -> None:
    status, answer = await harness.call(method, path, key="wrong")
    assert (status, answer["error"]["code"]) == (401, "unauthorized")
    assert not harness.drains.state.active


async def test_a_drain_shuts_the_door_and_undone_opens_the_same_one(harness: Harness) -> None:
    (address,) = harness.listener.addresses
    host, _, port = address.partition(":")
    report = {"node": "node-1", "sessions": 0, "remaining_ms": 0}
    assert await harness.call("GET", "/v1/node/drain") == (200, {**report, "state": "ready"})
    status, begun = await harness.call("POST", "/v1/node/drain", b'{"seconds": 5}')
    assert (status, begun["state"]) == (202, "draining")
    assert 0 < begun["remaining_ms"] <= 5_000
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))

    async def drained() -> bool:
        _, found = await harness.call("GET", "/v1/node/drain")
        return bool(found == {**report, "state": "drained"})

    await eventually(drained)
    assert await harness.call("DELETE", "/v1/node/drain") == (200, {**report, "state": "ready"})
    assert harness.listener.addresses == [address]
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    await writer.wait_closed()


async def test_a_node_that_stops_stays_shut(harness: Harness) -> None:
    await harness.call("POST", "/v1/node/drain")
    await harness.drains.stop()
    _, found = await harness.call("DELETE", "/v1/node/drain")
    assert found["state"] == "drained"
    assert harness.listener.addresses == []


@pytest.mark.parametrize("body", [b"{", b'{"seconds": -1}', b'{"seconds": "1"}', b'{"surprise": 1}'])
async def test_a_body_that_is_wrong(harness: Harness, body: bytes) -> None:
    status, answer = await harness.call("POST", "/v1/node/drain", body)
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert not harness.drains.state.active


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type": "miracle"}', b'{"type": "side", "room": "x"}'])
async def test_a_repair_that_is_none(harness: Harness, body: bytes) -> None:
    status, answer = await harness.call("POST", "/v1/node/repairs", body)
    assert (status, answer["error"]["code"]) == (400, "bad_request")


async def test_what_a_node_has_in_memory(harness: Harness) -> None:
    assert await harness.call("GET", "/v1/node") == (
        200,
        {
            "node": "node-1",
            "now": 1_000,
            "status": {"state": "ready"},
            "sessions": [SESSION_1],
            "rooms": {ROOM: {"version": met().version, "settled": True}},
        },
    )


async def test_a_room_with_its_moments(harness: Harness) -> None:
    now = asyncio.get_running_loop().time()
    harness.node.negotiation_log.note(ROOM, 2, "session", "resumed", now - 0.5)
    status, found = await harness.call("GET", f"/v1/node/rooms/{ROOM}")
    assert (status, found["room"]["version"], found["settled"]) == (200, met().version, True)
    assert found["here"] == [1]
    (moment,) = found["moments"]
    assert (moment["what"], moment["side"], moment["session"], moment["count"]) == (
        "resumed",
        2,
        "session",
        1,
    )
    assert moment["at"] == moment["until"] <= 500
    _, nothing = await harness.call("GET", "/v1/node/rooms/unknown")
    assert nothing == {"node": "node-1", "room": None, "settled": False, "here": [], "moments": []}

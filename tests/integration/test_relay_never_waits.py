"""Signals between two clients of one node pass whatever becomes of Redis and Postgres.

A node process of its own, with a fault proxy before each of its two databases. The sharp test is the one in which not
a byte of an answer comes through: there a relay that waited for anything would wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from keepline.cli.base.tokens import mint
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.ports import free_block
from tests.helpers.waiting import eventually

SECRET = "only for this test, and 32 bytes"
SERVICE_KEY = "only for this test"
FRAME_SECONDS = 10.0
LATE_SECONDS = 0.5
SIGNALS = 500
FEW = 60


class Client:
    """One member of the call. Frames that come while another is awaited are kept."""

    def __init__(self, websocket: ClientConnection, room: str) -> None:
        self._websocket = websocket
        self._room = room
        self._kept: deque[dict[str, Any]] = deque()
        self._sent = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self._websocket.send(json.dumps({"type": kind, **fields}))

    async def signal(self) -> int:
        """Send the next signal; returns its number."""
        self._sent += 1
        data = {"candidate": f"candidate {self._sent}"}
        await self.send("signal", room=self._room, stream="s", n=self._sent, data=data)
        return self._sent

    async def receive(self, kind: str) -> dict[str, Any]:
        """The next frame of that type."""
        for frame in self._kept:
            if frame["type"] == kind:
                self._kept.remove(frame)
                return frame
        async with asyncio.timeout(FRAME_SECONDS):
            while True:
                frame = json.loads(await self._websocket.recv())
                if frame["type"] == kind:
                    return dict(frame)
                self._kept.append(frame)

    def has(self, kind: str) -> bool:
        """Whether a frame of that type was passed over."""
        return any(frame["type"] == kind for frame in self._kept)


@dataclass
class Call:
    """Two clients in a room of one node, and what stands between the node and its databases."""

    alice: Client
    bob: Client
    room: str
    redis: FaultProxy
    postgres: FaultProxy
    ops_url: str
    http: aiohttp.ClientSession

    async def signals_pass(self, count: int = SIGNALS) -> list[float]:
        """Send signals to and fro; returns the seconds that each took. Fails when one is missing or out of order."""
        took = []
        for _ in range(count // 2):
            for sender, receiver in ((self.alice, self.bob), (self.bob, self.alice)):
                began = time.perf_counter()
                number = await sender.signal()
                frame = await receiver.receive("signal")
                took.append(time.perf_counter() - began)
                assert (frame["room"], frame["n"]) == (self.room, number)
        return took

    async def status_of(self, path: str) -> int:
        async with self.http.get(f"{self.ops_url}{path}") as response:
            return response.status


def through(proxy: FaultProxy, url: str) -> str:
    """The URL of the server behind a proxy."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{proxy.port}").geturl()


async def join(port: int, user: uuid.UUID, room: str, stack: AsyncExitStack) -> Client:
    websocket = await stack.enter_async_context(
        connect(
            f"ws://127.0.0.1:{port}/v1?room={room}",
            subprotocols=[Subprotocol("keepline.v1")],
            compression=None,
            proxy=None,
            close_timeout=1.0,
        )
    )
    client = Client(websocket, room)
    await client.send("hello", token=mint(user, SECRET, now=time.time(), ttl=3600, environ={}))
    await client.receive("welcome")
    await client.send("join", room=room)
    await client.receive("joined")
    return client


@pytest.fixture
async def call(redis_url: str, database_url: str) -> AsyncIterator[Call]:
    async with AsyncExitStack() as stack:
        redis, postgres = [
            await stack.enter_async_context(FaultProxy("127.0.0.1", urlsplit(url).port or 0, seed=20))
            for url in (redis_url, database_url)
        ]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_block(2)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLINE_")}
        settings = {
            "REDIS_URL": through(redis, redis_url),
            "DATABASE_URL": through(postgres, database_url),
            "KEEPLINE_HOST": "127.0.0.1",
            "KEEPLINE_PORT": str(port),
            "KEEPLINE_OPS_PORT": str(port + 1),
            "KEEPLINE_AUTH_SECRET": SECRET,
            "KEEPLINE_SERVICE_KEY": SERVICE_KEY,
            "KEEPLINE_DRAIN_SECONDS": "0",
            "KEEPLINE_LIMIT_FRAMES_PER_SECOND": "100000",
            "KEEPLINE_LIMIT_FRAMES_BURST": "100000",
        }
        command = Command(
            "signal-node", python("signal_node"), folder / "node.log", environment={**inherited, **settings}
        )
        node = Program(command, f"http://127.0.0.1:{port + 1}")
        await node.start()
        stack.push_async_callback(node.stop)
        await node.until_ready()
        timeout = aiohttp.ClientTimeout(total=FRAME_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        users = uuid.uuid4(), uuid.uuid4()
        async with http.post(
            f"{node.ops_url}/v1/rooms",
            json={"user_1": str(users[0]), "user_2": str(users[1])},
            headers={"Authorization": f"Bearer {SERVICE_KEY}"},
        ) as response:
            assert response.status == 201
            room = (await response.json())["room_id"]
        alice, bob = [await join(port, user, room, stack) for user in users]
        await alice.receive("peer")
        yield Call(alice, bob, room, redis, postgres, node.ops_url, http)


async def test_the_relay_is_as_fast_when_redis_is_late(call: Call) -> None:
    usual = statistics.median(await call.signals_pass(FEW))
    for direction in (call.redis.to_client, call.postgres.to_client):
        direction.delay = LATE_SECONDS
    await call.alice.send("chat", room=call.room, text="under way to Redis", id="1")
    late = statistics.median(await call.signals_pass(FEW))
    assert late < usual + LATE_SECONDS / 2
    ok = await call.alice.receive("ok")
    assert ok["message"]["seq"] == 1


def hold_answers(proxy: FaultProxy) -> None:
    proxy.to_client.hold()


def hold_everything(proxy: FaultProxy) -> None:
    proxy.to_client.hold()
    proxy.to_server.hold()


@pytest.mark.parametrize("fault", [hold_answers, hold_everything, FaultProxy.cut])
async def test_signals_pass_while_not_a_byte_comes_from_redis_and_postgres(
    call: Call, fault: Callable[[FaultProxy], None]
) -> None:
    for proxy in (call.redis, call.postgres):
        fault(proxy)
    heard = call.redis.to_client.passed, call.postgres.to_client.passed
    await call.alice.send("chat", room=call.room, text="kept until Redis is back", id="1")
    await call.signals_pass()
    await call.bob.send("typing", room=call.room)
    await call.bob.send("ack", room=call.room, stream="s", n=1)
    assert (await call.alice.receive("typing"))["room"] == call.room
    assert (await call.alice.receive("ack"))["n"] == 1
    assert (call.redis.to_client.passed, call.postgres.to_client.passed) == heard
    assert not call.alice.has("ok"), "what is promised is stored first"
    assert not call.bob.has("chat")
    assert await call.status_of("/livez") == 200
    for proxy in (call.redis, call.postgres):
        proxy.restore()
        proxy.to_client.release()
        proxy.to_server.release()
    ok = await call.alice.receive("ok")
    assert (ok["id"], ok["message"]["seq"]) == ("1", 1)
    assert (await call.bob.receive("chat"))["message"] == ok["message"]


async def test_what_needs_redis_is_refused_while_it_is_away_and_served_when_it_is_back(call: Call) -> None:
    for proxy in (call.redis, call.postgres):
        proxy.cut()
    await call.alice.send("join", room=str(uuid.uuid4()), id="2")
    refused = await call.alice.receive("error")
    assert (refused["id"], refused["code"]) == ("2", "unavailable")
    assert refused["retry_after_ms"] > 0
    await call.signals_pass(20)
    for proxy in (call.redis, call.postgres):
        proxy.restore()

    async def ready() -> bool:
        return await call.status_of("/readyz") == 200

    await eventually(ready, timeout=30.0, what="the node is ready again")
    await call.alice.send("chat", room=call.room, text="Redis is back", id="3")
    assert (await call.alice.receive("ok"))["message"]["seq"] == 1

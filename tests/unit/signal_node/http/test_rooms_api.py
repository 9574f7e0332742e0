"""The HTTP API on a real loopback server, over a node that does as told: every answer and every refusal."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from keepline.ops import http
from keepline.ops.health import Health
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room.codec import BadRecord
from keepline.room.commands import Command, End, Open, Post
from keepline.room.record import ChatMode, EndReason, Message, Room
from keepline.room.state import IllegalTransition
from signal_node.http.rooms_api import RoomsApi
from signal_node.rooms.journal import JournalFull, NotStored
from signal_node.rooms.timely import AnotherRoom, NoSuchRoom
from tests.unit.signal_node.calls import OTHER_ROOM, ROOM, SESSION_1, T0, USER_1, USER_2, after, met, step

KEY = "a service key, 16 bytes or more"
BODY = {"user_1": USER_1, "user_2": USER_2}
LINE = Message(1, USER_1, "hi", T0)


class FakeNode:
    """Rooms in a dictionary; fails as told."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.keys: dict[str, str] = {}
        self.commands: list[Command] = []
        self.failure: Exception | None = None
        self.disconnected: list[tuple[str, str]] = []

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def load(self, room_id: str) -> tuple[Room | None, list[Message]]:
        self._fail()
        room = self.rooms.get(room_id)
        return room, [LINE] if room is not None and room.last_seq else []

    async def rooms_of(self, user: str) -> list[Room]:
        self._fail()
        return [room for room in self.rooms.values() if room.side_of(user) is not None]

    async def execute(self, room: Room | None, room_id: str, command: Command) -> Room:
        self._fail()
        self.commands.append(command)
        stored, _ = step(room, command)
        self.rooms[room_id] = stored
        return stored

    async def open(self, command: Open, given_up: Callable[[], bool]) -> Room:
        assert not given_up()
        current = self.rooms.get(command.room_id)
        if current is None:
            return await self.execute(None, command.room_id, command)
        if (current.side_1.user, current.side_2.user) != (command.user_1, command.user_2):
            raise AnotherRoom
        return current

    async def end(
        self, room_id: str, reason: EndReason, given_up: Callable[[], bool]
    ) -> tuple[Room, list[Message]]:
        assert not given_up()
        room, lines = await self.load(room_id)
        if room is None:
            raise NoSuchRoom
        return (room if room.ended_reason else await self.execute(room, room_id, End(reason))), lines

    async def room_id(self, key: str) -> str:
        self._fail()
        return self.keys.setdefault(key, str(uuid.uuid4()))

    async def holder(self, user: str) -> tuple[str, str] | None:
        self._fail()
        return ("node-1", SESSION_1) if user == USER_1 else None

    def disconnect(self, node: str, session: str) -> None:
        self.disconnected.append((node, session))


class Backend:
    """The app's backend: calls the API, with the key unless told otherwise."""

    def __init__(self, address: tuple[str, int], session: aiohttp.ClientSession) -> None:
        self.address = address
        self._session = session

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = f"Bearer {KEY}",
        idempotency: str | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON of the answer; `body` is bytes or what becomes JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {} if key is None else {"Authorization": key}
        if idempotency is not None:
            headers["Idempotency-Key"] = idempotency
        host, port = self.address
        async with self._session.request(
            method, f"http://{host}:{port}{path}", data=data, headers=headers
        ) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """Status and code of a refusal, which has the one shape that refusals have."""
        status, answer = await self.call(method, path, body, **options)
        assert set(answer) == {"error"}
        assert set(answer["error"]) - {"retry_after_ms"} == {"code", "message"}
        return status, answer["error"]["code"]


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
async def backend(node: FakeNode, service_key: str | None) -> AsyncIterator[Backend]:
    fake = cast(Any, node)
    routes = RoomsApi(fake, fake, fake, fake, fake, service_key).routes()
    app = http.create_app(Health(lambda: 0.0), CollectorRegistry(), routes)
    timeout = aiohttp.ClientTimeout(total=10)
    async with http.serve(app, "127.0.0.1", 0) as address, aiohttp.ClientSession(timeout=timeout) as session:
        yield Backend(address, session)


@pytest.fixture
def service_key() -> str | None:
    return KEY


ROUTES = [
    ("POST", "/v1/rooms", BODY),
    ("GET", f"/v1/rooms?user={USER_1}", None),
    ("GET", f"/v1/rooms/{ROOM}", None),
    ("DELETE", f"/v1/rooms/{ROOM}", None),
    ("POST", f"/v1/users/{USER_1}/disconnect", None),
]

# --- the key ---


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize(
    "key",
    [None, "", KEY, "Bearer", "Bearer ", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer é", f"Bearer  {KEY}"],
)
async def test_nothing_goes_without_the_key(
    backend: Backend, node: FakeNode, method: str, path: str, body: Any, key: str | None
) -> None:
    node.rooms[ROOM] = met()
    assert await backend.refused(method, path, body, key=key) == (401, "unauthorized")
    assert (node.commands, node.disconnected) == ([], [])


async def test_a_key_of_bytes_that_are_no_text_is_wrong_like_any_other(backend: Backend) -> None:
    reader, writer = await asyncio.open_connection(*backend.address)
    try:
        writer.write(f"GET /v1/rooms/{ROOM} HTTP/1.1\r\nHost: x\r\n".encode())
        writer.write(b"Authorization: Bearer \xff\xfe\r\n\r\n")
        async with asyncio.timeout(10):
            assert b" 401 " in await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_word_bearer_may_be_written_as_one_likes(backend: Backend, node: FakeNode) -> None:
    node.rooms[ROOM] = met()
    status, _ = await backend.call("GET", f"/v1/rooms/{ROOM}", key=f"bearer {KEY}")
    assert status == 200


@pytest.mark.parametrize("service_key", [None])
@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("key", [None, "Bearer ", "Bearer None"])
async def test_without_a_key_of_its_own_the_api_is_off(
    backend: Backend, method: str, path: str, body: Any, key: str | None
) -> None:
    assert await backend.refused(method, path, body, key=key) == (503, "unavailable")


# --- opening ---


async def test_a_room_is_opened(backend: Backend, node: FakeNode) -> None:
    body = {**BODY, "chat_mode": "text", "duration_seconds": 60}
    status, room = await backend.call("POST", "/v1/rooms", body)
    assert status == 201
    assert (room["user_1"], room["user_2"], room["chat_mode"]) == (USER_1, USER_2, "text")
    assert (room["status"], room["duration_seconds"], room["version"]) == ("active", 60, 1)
    assert (room["messages"], room["user_1_connected"], room["ended_reason"]) == ([], False, None)
    assert str(uuid.UUID(room["room_id"])) == room["room_id"]
    assert node.commands == [Open(room["room_id"], USER_1, USER_2, ChatMode.TEXT, 60)]


async def test_asking_again_with_the_same_key_opens_no_second_room(backend: Backend, node: FakeNode) -> None:
    _, room = await backend.call("POST", "/v1/rooms", BODY, idempotency="order 7")
    assert await backend.call("POST", "/v1/rooms", BODY, idempotency="order 7") == (201, room)
    _, other = await backend.call("POST", "/v1/rooms", BODY, idempotency="order 8")
    assert list(node.rooms) == [room["room_id"], other["room_id"]]


async def test_a_key_is_for_one_room(backend: Backend) -> None:
    await backend.call("POST", "/v1/rooms", BODY, idempotency="order 7")
    others = {**BODY, "user_1": str(uuid.uuid4())}
    assert await backend.refused("POST", "/v1/rooms", others, idempotency="order 7") == (409, "conflict")


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
async def test_a_key_that_cannot_be_used(backend: Backend, node: FakeNode, key: str) -> None:
    assert await backend.refused("POST", "/v1/rooms", BODY, idempotency=key) == (400, "bad_request")
    assert node.rooms == {}


async def test_by_default_a_room_is_for_video_and_without_end(backend: Backend, node: FakeNode) -> None:
    _, room = await backend.call("POST", "/v1/rooms", BODY)
    assert (room["chat_mode"], room["duration_seconds"]) == ("video", 0)
    _, other = await backend.call("POST", "/v1/rooms", BODY)
    assert other["room_id"] != room["room_id"]


async def test_users_are_the_same_however_they_are_written(backend: Backend, node: FakeNode) -> None:
    upper = "AAAAAAAA-1111-4111-8111-111111111111"
    _, room = await backend.call("POST", "/v1/rooms", {**BODY, "user_1": upper})
    assert room["user_1"] == upper.lower()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 30_000,
        [],
        None,
        {},
        {"user_1": USER_1},
        {**BODY, "user_2": USER_1},
        {**BODY, "user_2": "bob"},
        {**BODY, "user_2": 7},
        {**BODY, "user_2": None},
        {**BODY, "chat_mode": "audio"},
        {**BODY, "duration_seconds": 59},
        {**BODY, "duration_seconds": 1_801},
        {**BODY, "duration_seconds": -1},
        {**BODY, "duration_seconds": 60.5},
        {**BODY, "duration_seconds": "60"},
        {**BODY, "duration_seconds": True},
        {**BODY, "surprise": 1},
    ],
)
async def test_a_body_that_is_wrong(backend: Backend, node: FakeNode, body: Any) -> None:
    assert await backend.refused("POST", "/v1/rooms", body) == (400, "bad_request")
    assert node.rooms == {}


async def test_a_body_that_is_too_large(backend: Backend) -> None:
    assert await backend.refused("POST", "/v1/rooms", b" " * 70_000) == (413, "too_large")


# --- looking and ending ---


async def test_a_room_with_its_chat(backend: Backend, node: FakeNode) -> None:
    node.rooms[ROOM] = after(met(chat_mode=ChatMode.TEXT), Post(1, "hi"))
    status, room = await backend.call("GET", f"/v1/rooms/{ROOM.upper()}")
    assert (status, room["room_id"], room["user_2_connected"]) == (200, ROOM, True)
    assert room["messages"] == [{"seq": 1, "from": USER_1, "text": "hi", "at": T0}]


async def test_the_rooms_of_a_user(backend: Backend, node: FakeNode) -> None:
    node.rooms = {ROOM: met(), OTHER_ROOM: met(room_id=OTHER_ROOM)}
    status, answer = await backend.call("GET", f"/v1/rooms?user={USER_2}")
    assert status == 200
    assert [room["room_id"] for room in answer["rooms"]] == [ROOM, OTHER_ROOM]
    stranger = uuid.uuid4()
    assert await backend.call("GET", f"/v1/rooms?user={stranger}") == (200, {"rooms": []})


async def test_a_room_is_ended(backend: Backend, node: FakeNode) -> None:
    node.rooms[ROOM] = met()
    status, room = await backend.call("DELETE", f"/v1/rooms/{ROOM}")
    assert (status, room["status"], room["ended_reason"]) == (200, "ended", "deleted")
    assert node.commands == [End(EndReason.DELETED)]


async def test_a_room_that_is_over_is_not_ended_again(backend: Backend, node: FakeNode) -> None:
    node.rooms[ROOM] = after(met(), End(EndReason.HANGUP))
    status, room = await backend.call("DELETE", f"/v1/rooms/{ROOM}")
    assert (status, room["status"], room["ended_reason"]) == (200, "ended", "hangup")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_room_that_is_not_there(backend: Backend, method: str) -> None:
    assert await backend.refused(method, f"/v1/rooms/{ROOM}") == (404, "room_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/rooms/7"),
        ("DELETE", "/v1/rooms/7"),
        ("GET", "/v1/rooms"),
        ("GET", "/v1/rooms?user=bob"),
        ("POST", "/v1/users/bob/disconnect"),
    ],
)
async def test_a_name_that_is_no_uuid(backend: Backend, method: str, path: str) -> None:
    assert await backend.refused(method, path) == (400, "bad_request")


async def test_what_there_is_not(backend: Backend) -> None:
    assert await backend.refused("PUT", "/v1/rooms", BODY) == (405, "method_not_allowed")
    assert await backend.refused("GET", "/v1/nothing") == (404, "not_found")


# --- users ---


async def test_a_user_is_put_out(backend: Backend, node: FakeNode) -> None:
    assert await backend.call("POST", f"/v1/users/{USER_1}/disconnect") == (202, {"disconnected": True})
    assert await backend.call("POST", f"/v1/users/{USER_2}/disconnect") == (202, {"disconnected": False})
    assert node.disconnected == [("node-1", SESSION_1)]


# --- when Redis is away ---


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), JournalFull(), NotStored("no")])
@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_what_cannot_be_served_now_says_when_to_try_again(
    backend: Backend, node: FakeNode, method: str, path: str, body: Any, failure: Exception
) -> None:
    node.failure = failure
    status, answer = await backend.call(method, path, body)
    assert (status, answer["error"]["code"], answer["error"]["retry_after_ms"]) == (503, "unavailable", 1_000)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_record_that_cannot_be_read(backend: Backend, node: FakeNode, method: str) -> None:
    node.failure = BadRecord("of another release")
    assert await backend.refused(method, f"/v1/rooms/{ROOM}") == (500, "internal")


async def test_why_a_room_cannot_be_opened(backend: Backend, node: FakeNode) -> None:
    node.failure = IllegalTransition(None, End(EndReason.DELETED), "a reason")
    status, answer = await backend.call("POST", "/v1/rooms", BODY)
    assert (status, answer["error"]) == (400, {"code": "bad_request", "message": "a reason"})

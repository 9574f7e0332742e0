"""The demo page's server: what it accepts, and how it goes round nodes that are away."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from keepline.cli.base.credentials import Credentials
from keepline.cli.local.demo import Demo, DemoNode, Wish, find_web_folder, parse_wish, socket_urls
from keepline.ops.http import HttpError, serve
from tests.helpers.ports import free_port

CREDENTIALS = Credentials("a" * 32, "k" * 32)


@pytest.mark.parametrize(
    ("body", "wish"),
    [
        (b"", Wish()),
        (b"{}", Wish()),
        (b'{"chat_mode": "text", "duration_seconds": 60}', Wish("text", 60)),
        (b'{"nodes": [1, 0], "duration_seconds": 1800}', Wish(duration_seconds=1800, nodes=(1, 0))),
        (b'{"nodes": null}', Wish()),
    ],
)
def test_a_wish_may_leave_everything_out(body: bytes, wish: Wish) -> None:
    assert parse_wish(body, 2) == wish


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"chat_mode": "smoke"}', "chat_mode"),
        (b'{"duration_seconds": 59}', "60 to 1800"),
        (b'{"duration_seconds": 1801}', "duration_seconds"),
        (b'{"duration_seconds": -1}', "duration_seconds"),
        (b'{"duration_seconds": "60"}', "duration_seconds"),
        (b'{"nodes": [0]}', "nodes"),
        (b'{"nodes": [0, 1, 1]}', "nodes"),
        (b'{"nodes": [0, 2]}', "0 to 1"),
        (b'{"nodes": [-1, 0]}', "nodes"),
        (b'{"room": "mine"}', "room"),
        (b"\xff", "UTF-8|malformed"),
    ],
)
def test_other_wishes_are_refused_with_the_reason(body: bytes, about: str) -> None:
    with pytest.raises(HttpError, match=about) as caught:
        parse_wish(body, 2)
    assert (caught.value.status, caught.value.code) == (400, "bad_request")


def test_each_side_tries_its_own_node_first_and_knows_all() -> None:
    assert socket_urls("box.local", [1, 2, 3], 1) == [
        "ws://box.local:2/v1",
        "ws://box.local:3/v1",
        "ws://box.local:1/v1",
    ]
    assert socket_urls("::1", [8080], 0) == ["ws://[::1]:8080/v1"]


def test_the_page_is_found_in_a_checkout() -> None:
    assert (find_web_folder() / "keepline.bundle.js").is_file()


class FakeNode:
    """Answers POST /v1/rooms like a signal node, or with `status`."""

    def __init__(self) -> None:
        self.status = 201
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []

    async def open_room(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers["Authorization"])
        return web.json_response({"room_id": "r-1"}, status=self.status)


@pytest.fixture
async def fake_node() -> AsyncIterator[tuple[FakeNode, str]]:
    node = FakeNode()
    app = web.Application()
    app.router.add_post("/v1/rooms", node.open_room)
    async with serve(app, "127.0.0.1", 0) as (host, port):
        yield node, f"http://{host}:{port}"


@pytest.fixture
async def demo_url(fake_node: tuple[FakeNode, str], tmp_path: Path) -> AsyncIterator[str]:
    """A demo with two nodes, of which the first is away."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("<h1>demo</h1>")
    (tmp_path / "secret.txt").write_text("not for visitors")
    nodes = [DemoNode(7001, f"http://127.0.0.1:{free_port()}"), DemoNode(7002, fake_node[1])]
    async with serve(Demo(nodes, CREDENTIALS, {}, tmp_path).app(), "127.0.0.1", 0) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_a_room_is_opened_for_two_fresh_users_over_a_node_that_answers(
    demo_url: str, fake_node: tuple[FakeNode, str], http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{demo_url}/demo/rooms", json={"chat_mode": "text"}) as response:
        assert response.status == 201
        opened = await response.json()
    node, _ = fake_node
    users = [uuid.UUID(side["user"]) for side in opened["sides"]]
    assert users[0] != users[1]
    asked = {"user_1": str(users[0]), "user_2": str(users[1]), "chat_mode": "text", "duration_seconds": 0}
    assert node.asked == [asked]
    assert node.keys == [f"Bearer {CREDENTIALS.service_key}"]
    assert opened["room"] == "r-1"
    assert [side["urls"][0] for side in opened["sides"]] == [
        "ws://127.0.0.1:7001/v1",
        "ws://127.0.0.1:7002/v1",
    ]
    for side in opened["sides"]:
        assert jwt.decode(side["token"], CREDENTIALS.auth_secret, algorithms=["HS256"])["sub"] == side["user"]


async def test_the_urls_name_the_host_that_the_visitor_used(
    demo_url: str, http: aiohttp.ClientSession
) -> None:
    wish = {"nodes": [1, 1]}
    async with http.post(f"{demo_url}/demo/rooms", json=wish, headers={"Host": "laptop.lan:9"}) as response:
        sides = (await response.json())["sides"]
    assert {tuple(side["urls"]) for side in sides} == {("ws://laptop.lan:7002/v1", "ws://laptop.lan:7001/v1")}


async def test_without_any_node_the_visitor_is_told_to_come_back(
    demo_url: str, fake_node: tuple[FakeNode, str], http: aiohttp.ClientSession
) -> None:
    fake_node[0].status = 503
    async with http.post(f"{demo_url}/demo/rooms", json={}) as response:
        assert response.status == 503
        error = (await response.json())["error"]
    assert error["code"] == "unavailable"
    assert error["retry_after_ms"] > 0


async def test_another_site_cannot_open_rooms_from_a_form(demo_url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{demo_url}/demo/rooms", data={"chat_mode": "text"}) as response:
        assert response.status == 415


async def test_only_the_page_and_the_sdk_are_served(demo_url: str, http: aiohttp.ClientSession) -> None:
    async with http.get(demo_url) as response:
        assert (response.status, await response.text()) == (200, "<h1>demo</h1>")
    for path in ("/secret.txt", "/../secret.txt", "/demo.css"):
        async with http.get(demo_url + path) as response:
            assert response.status == 404

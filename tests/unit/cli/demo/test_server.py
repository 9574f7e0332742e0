"""The demo page's server: what it accepts, what it hands out, and how it goes round nodes that are away."""

import io
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import segno
from aiohttp import web

from keepline.cli.base.credentials import Credentials
from keepline.cli.demo.pages import find_web_folder
from keepline.cli.demo.rooms import DemoNode, Rooms
from keepline.cli.demo.server import Backend, Demo
from keepline.cli.demo.wishes import Wish, parse_wish
from keepline.ops.http import HttpError, serve
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

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


def test_the_page_is_found_in_a_checkout() -> None:
    assert (find_web_folder() / "keepline.bundle.js").is_file()


class FakeNode:
    """Answers for rooms like a signal node, or with `status`."""

    def __init__(self) -> None:
        self.status = 201
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.connected = [True, False]
        self.room_status = "active"

    async def open_room(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers["Authorization"])
        return web.json_response({"room_id": "r-1"}, status=self.status)

    async def room(self, request: web.Request) -> web.Response:
        one, two = self.connected
        return web.json_response(
            {"status": self.room_status, "user_1_connected": one, "user_2_connected": two}
        )

    async def readyz(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.status == 201 else 503)


@pytest.fixture
async def fake_node() -> AsyncIterator[tuple[FakeNode, str]]:
    node = FakeNode()
    app = web.Application()
    app.router.add_post("/v1/rooms", node.open_room)
    app.router.add_get("/v1/rooms/r-1", node.room)
    app.router.add_get("/readyz", node.readyz)
    async with serve(app, "127.0.0.1", 0) as (host, port):
        yield node, f"http://{host}:{port}"


KILLED: list[str] = []


async def kill(name: str) -> int:
    if name not in ("node-1", "redis"):
        raise LookupError(f"there is no {name} here; there are node-1, redis")
    KILLED.append(name)
    return 4711


@pytest.fixture
async def demo(fake_node: tuple[FakeNode, str], tmp_path: Path) -> Demo:
    """A demo with two nodes, of which the first is away."""
    KILLED.clear()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "index.html").write_text("<h1>demo</h1>")
    (tmp_path / "demo" / "demo.js").write_text("demo()")
    (tmp_path / "secret.txt").write_text("not for visitors")
    nodes = [
        DemoNode("node-1", 7001, "http://127.0.0.1:7001/v1", f"http://127.0.0.1:{free_port()}"),
        DemoNode("node-2", 7002, "http://127.0.0.1:7002/v1", fake_node[1]),
    ]
    rooms = Rooms(nodes, CREDENTIALS.service_key)
    return Demo(rooms, Backend(CREDENTIALS, {}), tmp_path, kill)


@pytest.fixture
async def demo_url(demo: Demo) -> AsyncIterator[str]:
    async with serve(demo.app(), "127.0.0.1", 0) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


Answer = tuple[int, dict[str, Any]]


async def post(http: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> Answer:
    async with http.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_a_room_is_opened_for_two_fresh_users_over_a_node_that_answers(
    demo_url: str, fake_node: tuple[FakeNode, str], http: aiohttp.ClientSession
) -> None:
    status, host = await post(http, f"{demo_url}/demo/calls", {"chat_mode": "text"})
    assert status == 201
    status, guest = await post(http, f"{demo_url}/demo/calls/{host['code']}/seat", {})
    assert status == 200
    node, _ = fake_node
    users = [uuid.UUID(seat["user"]) for seat in (host, guest)]
    assert users[0] != users[1]
    asked = {"user_1": str(users[0]), "user_2": str(users[1]), "chat_mode": "text", "duration_seconds": 0}
    assert node.asked == [asked]
    assert node.keys == [f"Bearer {CREDENTIALS.service_key}"]
    assert (host["room"], host["link"]) == ("r-1", f"{demo_url}/c/{host['code']}")
    sockets = ["ws://127.0.0.1:7001/v1", "ws://127.0.0.1:7002/v1"]
    assert [host["urls"], guest["urls"]] == [sockets, sockets[::-1]]
    for seat in (host, guest):
        assert jwt.decode(seat["token"], CREDENTIALS.auth_secret, algorithms=["HS256"])["sub"] == seat["user"]


async def test_addresses_name_the_host_that_the_visitor_used(
    demo_url: str, http: aiohttp.ClientSession
) -> None:
    wish = {"nodes": [1, 1]}
    _, seat = await post(http, f"{demo_url}/demo/calls", wish, Host="laptop.lan:9")
    assert seat["urls"] == ["ws://laptop.lan:7002/v1", "ws://laptop.lan:7001/v1"]
    assert seat["link"] == f"http://laptop.lan:9/c/{seat['code']}"
    assert seat["shareable"]
    _, seat = await post(http, f"{demo_url}/demo/calls", wish, Host="[::1]:9")
    assert seat["urls"][0] == "ws://[::1]:7002/v1"
    assert not seat["shareable"], "loopback is another machine for everybody else"


async def test_a_host_that_is_none_is_refused(demo_url: str, http: aiohttp.ClientSession) -> None:
    for host in ("evil; script-src *", "a b", "<x>"):
        async with http.get(demo_url, headers={"Host": host}) as response:
            assert response.status == 400, host


async def test_without_any_node_the_visitor_is_told_to_come_back(
    demo_url: str, fake_node: tuple[FakeNode, str], http: aiohttp.ClientSession
) -> None:
    fake_node[0].status = 503
    status, body = await post(http, f"{demo_url}/demo/calls", {})
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert body["error"]["retry_after_ms"] > 0


async def test_a_full_call_an_ended_one_and_an_unknown_one_are_told_apart(
    demo_url: str, fake_node: tuple[FakeNode, str], http: aiohttp.ClientSession
) -> None:
    _, host = await post(http, f"{demo_url}/demo/calls", {})
    seat = f"{demo_url}/demo/calls/{host['code']}/seat"
    await post(http, seat, {})
    status, full = await post(http, seat, {})
    assert (status, full["error"]["code"]) == (409, "call_full")
    status, again = await post(http, seat, {"key": host["key"]})
    assert (status, again["user"]) == (200, host["user"])
    fake_node[0].room_status = "ended"
    status, over = await post(http, seat, {"key": host["key"]})
    assert (status, over["error"]["code"]) == (410, "room_ended")
    status, unknown = await post(http, f"{demo_url}/demo/calls/abcdefgh/seat", {})
    assert (status, unknown["error"]["code"]) == (404, "not_found")


async def test_the_button_kills_a_node_once_for_each_key(demo_url: str, http: aiohttp.ClientSession) -> None:
    _, host = await post(http, f"{demo_url}/demo/calls", {})
    kill_url = f"{demo_url}/demo/calls/{host['code']}/kill"
    body = {"key": host["key"], "kill_key": host["kill_key"], "node": "node-1"}
    status, killed = await post(http, kill_url, body)
    assert (status, killed["pid"], KILLED) == (200, 4711, ["node-1"])
    assert (await post(http, kill_url, body))[0] == 403
    assert (await post(http, kill_url, {**body, "kill_key": killed["kill_key"]}))[0] == 200
    assert (await post(http, kill_url, {**body, "node": "redis"}))[0] == 404, "the button is for nodes"
    assert KILLED == ["node-1"] * 2


async def test_the_button_does_not_kill_the_last_node_that_is_ready(
    demo_url: str, http: aiohttp.ClientSession
) -> None:
    _, host = await post(http, f"{demo_url}/demo/calls", {})
    body = {"key": host["key"], "kill_key": host["kill_key"], "node": "node-2"}
    status, refused = await post(http, f"{demo_url}/demo/calls/{host['code']}/kill", body)
    assert (status, refused["error"]["code"], KILLED) == (409, "not_now", [])


async def test_the_command_kills_any_program_with_the_service_key(
    demo_url: str, http: aiohttp.ClientSession
) -> None:
    url, key = f"{demo_url}/demo/kill", f"Bearer {CREDENTIALS.service_key}"
    assert (await post(http, url, {"program": "redis"}))[0] == 401
    assert (await post(http, url, {"program": "redis"}, Authorization="Bearer no"))[0] == 401
    assert (await post(http, url, {"program": "redis"}, Authorization=key))[0] == 200
    status, refused = await post(http, url, {"program": "moon"}, Authorization=key)
    assert (status, KILLED) == (409, ["redis"])
    assert "node-1, redis" in refused["error"]["message"]


async def test_open_pages_are_told_what_becomes_of_programs(
    demo: Demo, demo_url: str, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(f"{demo_url}/demo/events") as page:
        await eventually(lambda: demo.events.pages == 1)
        demo.events.tell({"program": "node-1", "what": "running", "pid": 5})
        assert await page.receive_json(timeout=10) == {"program": "node-1", "what": "running", "pid": 5}
    await eventually(lambda: demo.events.pages == 0)


async def test_another_site_cannot_open_calls_from_a_form(demo_url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{demo_url}/demo/calls", data={"chat_mode": "text"}) as response:
        assert response.status == 415


async def test_only_the_page_and_the_sdk_are_served(demo_url: str, http: aiohttp.ClientSession) -> None:
    for path in ("/", "/c/abcdefgh"):
        async with http.get(demo_url + path) as response:
            assert (response.status, await response.text()) == (200, "<h1>demo</h1>")
    async with http.get(f"{demo_url}/demo.js") as response:
        assert (response.status, await response.text()) == (200, "demo()")
    for path in ("/secret.txt", "/../secret.txt", "/demo.css", "/demo/index.html"):
        async with http.get(demo_url + path) as response:
            assert response.status == 404


async def test_the_page_may_load_its_own_files_and_connect_to_its_nodes_only(
    demo_url: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(demo_url, headers={"Host": "127.0.0.1:9"}) as response:
        headers = response.headers
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"]) == ("'self'", "'self'")
    assert policy["connect-src"] == "'self' ws://127.0.0.1:7001 ws://127.0.0.1:7002 ws://127.0.0.1:9"
    assert policy["frame-ancestors"] == "'none'"
    async with http.get(f"{demo_url}/demo.js") as response:
        for each in (headers, response.headers):
            assert each["X-Content-Type-Options"] == "nosniff"
            assert each["Referrer-Policy"] == "no-referrer"


async def test_the_code_to_scan_is_that_of_the_link(demo_url: str, http: aiohttp.ClientSession) -> None:
    _, host = await post(http, f"{demo_url}/demo/calls", {})
    async with http.get(f"{demo_url}/c/{host['code']}/qr.svg") as response:
        assert response.content_type == "image/svg+xml"
        picture = await response.read()
    wanted = io.BytesIO()
    segno.make(host["link"], error="m", micro=False).save(wanted, kind="svg", scale=4, border=4, light="#fff")
    assert picture == wanted.getvalue()
    async with http.get(f"{demo_url}/c/abcdefgh/qr.svg") as response:
        assert response.status == 404


async def test_without_the_library_of_codes_the_page_does_without(
    demo_url: str, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    _, host = await post(http, f"{demo_url}/demo/calls", {})
    async with http.get(f"{demo_url}/c/{host['code']}/qr.svg") as response:
        assert response.status == 404
        assert "keepline[embedded]" in await response.text()

"""The demo page: serves the browser SDK with a page that uses it, and opens rooms for its visitors.

It stands for an app's own backend: it alone holds the secrets, makes up two users for each call and mints their
tokens. For a machine under one's desk, not for the Internet: whoever can reach it can open rooms.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

import keepline
from keepline.cli.base.credentials import Credentials
from keepline.cli.base.tokens import mint
from keepline.ops.health import Health
from keepline.ops.http import HttpError, create_app, json_response

TOKEN_SECONDS = 24 * 3600
_NODE_SECONDS = 3.0
_MOST_NODES = 1000
# What the page may load, by path, and where that lies in the folder of the browser SDK.
_FILES = {
    "/": "demo/index.html",
    "/demo.js": "demo/demo.js",
    "/demo.css": "demo/demo.css",
    "/keepline.js": "keepline.bundle.js",
}


@dataclass(frozen=True, slots=True)
class DemoNode:
    """Where a signal node takes clients (a port, on whatever host the visitor came to) and its HTTP API."""

    port: int
    http: str


_Index = Annotated[int, msgspec.Meta(ge=0, lt=_MOST_NODES)]


class Wish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of POST /demo/rooms. `nodes` says which node each side tries first, by index."""

    chat_mode: Literal["video", "text"] = "video"
    duration_seconds: Annotated[int, msgspec.Meta(ge=0, le=1800)] = 0
    nodes: tuple[_Index, _Index] | None = None


def parse_wish(body: bytes, nodes: int) -> Wish:
    """Return what a visitor asks for; raises HttpError 400 that says what is wrong with it."""
    try:
        wish = msgspec.json.decode(body or b"{}", type=Wish)
    except msgspec.DecodeError as error:
        raise HttpError(400, "bad_request", str(error)) from None
    if 0 < wish.duration_seconds < 60:
        raise HttpError(400, "bad_request", "duration_seconds should be 0 (no limit) or 60 to 1800")
    if wish.nodes is not None and max(wish.nodes) >= nodes:
        raise HttpError(400, "bad_request", f"nodes should be two indices from 0 to {nodes - 1}")
    return wish


def socket_urls(host: str, ports: Sequence[int], first: int) -> list[str]:
    """WebSocket URLs of all nodes as seen from a visitor of `host`, beginning with node `first`."""
    literal = f"[{host}]" if ":" in host else host
    turned = [*ports[first:], *ports[:first]]
    return [f"ws://{literal}:{port}/v1" for port in turned]


class Demo:
    """Opens rooms over the HTTP API of `nodes`, in turn where one is away."""

    def __init__(
        self,
        nodes: Sequence[DemoNode],
        credentials: Credentials,
        environ: Mapping[str, str],
        web_folder: Path,
    ) -> None:
        self._nodes = nodes
        self._credentials = credentials
        self._environ = environ
        self._web_folder = web_folder

    def app(self) -> web.Application:
        """The demo as an aiohttp application."""
        routes = [web.get(path, self._send_file) for path in _FILES]
        routes.append(web.post("/demo/rooms", self._open_room))
        return create_app(Health(time.monotonic), CollectorRegistry(), routes)

    async def _send_file(self, request: web.Request) -> web.StreamResponse:
        path = self._web_folder / _FILES[request.path]
        if not path.is_file():
            raise HttpError(404, "not_found", f"this installation has no {_FILES[request.path]}")
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def _open_room(self, request: web.Request) -> web.Response:
        # Browsers ask before they send JSON to another site, so no other site can open rooms here.
        if request.content_type != "application/json":
            raise HttpError(415, "bad_request", "the body should be application/json")
        wish = parse_wish(await request.read(), len(self._nodes))
        users = (uuid.uuid4(), uuid.uuid4())
        first = wish.nodes or (0, 1 % len(self._nodes))
        room = await self._create(wish, users, first[0])
        host = _host_of(request)
        ports = [node.port for node in self._nodes]
        sides = [
            {"user": str(user), "token": self._token(user), "urls": socket_urls(host, ports, index)}
            for user, index in zip(users, first, strict=True)
        ]
        return json_response({"room": room["room_id"], "sides": sides}, 201)

    def _token(self, user: uuid.UUID) -> str:
        secret = self._credentials.auth_secret
        return mint(user, secret, now=time.time(), ttl=TOKEN_SECONDS, environ=self._environ)

    async def _create(self, wish: Wish, users: tuple[uuid.UUID, uuid.UUID], first: int) -> dict[str, Any]:
        body = {
            "user_1": str(users[0]),
            "user_2": str(users[1]),
            "chat_mode": wish.chat_mode,
            "duration_seconds": wish.duration_seconds,
        }
        key = {"Authorization": f"Bearer {self._credentials.service_key}"}
        timeout = aiohttp.ClientTimeout(total=_NODE_SECONDS)
        problem = ""
        async with aiohttp.ClientSession(timeout=timeout, headers=key) as session:
            for node in [*self._nodes[first:], *self._nodes[:first]]:
                try:
                    async with session.post(f"{node.http}/v1/rooms", json=body) as response:
                        if response.status == 201:
                            snapshot: dict[str, Any] = await response.json()
                            return snapshot
                        problem = await response.text()
                except (aiohttp.ClientError, TimeoutError) as error:
                    problem = str(error) or type(error).__name__
        raise HttpError(503, "unavailable", f"no node could open a room: {problem}", retry_after_ms=1000)


def find_web_folder() -> Path:
    """Where the browser SDK is: inside the installed package, or in the checkout that it is installed from."""
    packaged = Path(__file__).parent / "web"
    return packaged if packaged.is_dir() else Path(keepline.__file__).parents[1] / "clients" / "js"


def _host_of(request: web.Request) -> str:
    """The host that the visitor's browser used, without its port."""
    try:
        host = request.url.host
    except ValueError:
        host = None
    if not host:
        raise HttpError(400, "bad_request", "the Host header is missing or malformed")
    return host

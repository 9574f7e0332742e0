"""The demo page's server: serves the page with the browser SDK, and opens rooms for its visitors.

It plays the role of an app's backend: it has the secrets, creates two users for each call and issues their tokens. Do
not expose it to the internet: anyone who can reach it can open rooms.

Over TLS (`keepline up --lan`), clients also reach the nodes through this server, see `proxy`.
"""

import hmac
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from keepline.cli.base.credentials import Credentials
from keepline.cli.base.tokens import mint
from keepline.cli.demo import qr
from keepline.cli.demo.calls import Calls, DemoCall, Seat
from keepline.cli.demo.events import Events
from keepline.cli.demo.pages import FILE_HEADERS, page_files, security_headers, socket_source, visited_host
from keepline.cli.demo.proxy import relay
from keepline.cli.demo.rooms import Rooms
from keepline.cli.demo.wishes import Entry, Kill, KillProgram, parse, parse_wish
from keepline.ops.health import Health
from keepline.ops.http import HttpError, create_app, json_response

TOKEN_SECONDS = 24 * 3600
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")

KillByName = Callable[[str], Awaitable[int]]
"""Ends a program by SIGKILL and returns its process id. Raises LookupError for a name that is not running."""

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Backend:
    """What the demo knows, like an app's backend: its secrets, and the settings for tokens."""

    credentials: Credentials
    environ: Mapping[str, str]

    def token(self, user: uuid.UUID) -> str:
        """A token for a client."""
        secret = self.credentials.auth_secret
        return mint(user, secret, now=time.time(), ttl=TOKEN_SECONDS, environ=self.environ)

    def is_service_key(self, header: str) -> bool:
        """Whether an Authorization header has the service key."""
        wanted = f"Bearer {self.credentials.service_key}".encode()
        return hmac.compare_digest(header.encode(errors="surrogateescape"), wanted)


class Demo:
    """The page and its calls. `lan` is the address of the page for other machines; None if there is none."""

    def __init__(
        self, rooms: Rooms, backend: Backend, web_folder: Path, kill: KillByName, *, lan: str | None = None
    ) -> None:
        self.events = Events()
        self._rooms = rooms
        self._backend = backend
        self._page, self._files = page_files(web_folder)
        self._kill = kill
        self._lan = lan
        self._calls = Calls()

    def app(self) -> web.Application:
        """The demo as an aiohttp application: a new one for each port on which it is served."""
        routes: list[web.AbstractRouteDef] = [web.get(path, self._send_file) for path in self._files]
        routes += [
            web.get("/", self._send_page),
            web.get("/c/{code}", self._send_page),
            web.get("/c/{code}/qr.svg", self._send_qr),
            web.post("/demo/calls", self._open_call),
            web.post("/demo/calls/{code}/seat", self._take_seat),
            web.post("/demo/calls/{code}/kill", self._kill_node),
            web.get("/demo/events", self._stream_events),
            web.get("/demo/nodes/{index}/v1", self._relay),
            web.post("/demo/kill", self._kill_program),
        ]
        return create_app(Health(time.monotonic), CollectorRegistry(), routes)

    async def _send_file(self, request: web.Request) -> web.StreamResponse:
        return _file(self._files[request.path], FILE_HEADERS)

    async def _send_page(self, request: web.Request) -> web.StreamResponse:
        sockets = [*self._urls(request, 0), _own_socket(request)]
        return _file(self._page, security_headers(sorted({socket_source(url) for url in sockets})))

    async def _send_qr(self, request: web.Request) -> web.Response:
        picture = qr.svg(self._link(request, self._call(request)))
        if picture is None:
            raise HttpError(
                404, "not_found", "this installation makes no QR codes: install keepline[embedded]"
            )
        return web.Response(body=picture, content_type="image/svg+xml", headers=FILE_HEADERS)

    async def _open_call(self, request: web.Request) -> web.Response:
        wish = parse_wish(await _json_body(request), len(self._rooms.nodes))
        users = (uuid.uuid4(), uuid.uuid4())
        first = wish.nodes or (0, 1 % len(self._rooms.nodes))
        room = await self._rooms.open(wish, users, first[0])
        call = self._calls.open(room, users, first, time.monotonic())
        return json_response(self._describe(request, call, call.seats[0]), 201)

    async def _take_seat(self, request: web.Request) -> web.Response:
        call, entry = self._call(request), await _parsed(request, Entry)
        snapshot = await self._rooms.look(call.room)
        if snapshot is None:
            raise HttpError(410, "room_ended", "this call has ended")
        connected = (bool(snapshot["user_1_connected"]), bool(snapshot["user_2_connected"]))
        seat = call.seat(entry.key, connected, time.monotonic())
        if seat is None:
            raise HttpError(409, "call_full", "two people are in this call already")
        return json_response(self._describe(request, call, seat))

    async def _kill_node(self, request: web.Request) -> web.Response:
        call, kill = self._call(request), await _parsed(request, Kill)
        if kill.node not in {node.name for node in self._rooms.nodes}:
            raise HttpError(404, "not_found", f"there is no node {kill.node}")
        if len(self._rooms.nodes) > 1 and not await self._rooms.another_is_ready(kill.node):
            raise HttpError(409, "not_now", "no other node is ready yet: try again in a moment")
        following = call.spend_kill_key(kill.key, kill.kill_key)
        if following is None:
            raise HttpError(403, "forbidden", "this key has been used, or was never one")
        pid = await self._killed(kill.node)
        return json_response({"node": kill.node, "pid": pid, "kill_key": following})

    async def _kill_program(self, request: web.Request) -> web.Response:
        if not self._backend.is_service_key(request.headers.get("Authorization", "")):
            raise HttpError(401, "unauthorized", "missing or wrong service key")
        program = (await _parsed(request, KillProgram)).program
        return json_response({"program": program, "pid": await self._killed(program)})

    async def _killed(self, name: str) -> int:
        try:
            return await self._kill(name)
        except LookupError as error:
            raise HttpError(409, "not_running", str(error.args[0])) from None

    async def _stream_events(self, request: web.Request) -> web.StreamResponse:
        return await self.events.stream(request)

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        index = request.match_info["index"]
        if not request.secure or index not in map(str, range(len(self._rooms.nodes))):
            raise HttpError(404, "not_found", "there is no such node here")
        async with aiohttp.ClientSession() as session:
            return await relay(request, session, self._rooms.nodes[int(index)].socket)

    def _call(self, request: web.Request) -> DemoCall:
        call = self._calls.find(request.match_info["code"], time.monotonic())
        if call is None:
            raise HttpError(404, "not_found", "the link is invalid or has expired")
        return call

    def _describe(self, request: web.Request, call: DemoCall, seat: Seat) -> dict[str, Any]:
        """What a page needs to join a call."""
        return {
            "code": call.code,
            "link": self._link(request, call),
            "shareable": self._lan is not None or visited_host(request) not in _LOOPBACK_HOSTS,
            "room": call.room,
            "user": str(seat.user),
            "token": self._backend.token(seat.user),
            "urls": self._urls(request, seat.first),
            "key": seat.key,
            "kill_key": seat.kill_key,
        }

    def _link(self, request: web.Request, call: DemoCall) -> str:
        base = self._lan or f"{request.scheme}://{_host_and_port(request)}"
        return f"{base.rstrip('/')}/c/{call.code}"

    def _urls(self, request: web.Request, first: int) -> list[str]:
        """WebSocket addresses of all nodes, as seen by the visitor, starting with node `first`."""
        indices = [*range(first, len(self._rooms.nodes)), *range(first)]
        if request.secure:
            return [f"wss://{_host_and_port(request)}/demo/nodes/{index}/v1" for index in indices]
        host = visited_host(request)
        return [f"ws://{host}:{self._rooms.nodes[index].port}/v1" for index in indices]


def _file(path: Path, headers: Mapping[str, str]) -> web.StreamResponse:
    if not path.is_file():
        raise HttpError(404, "not_found", f"this installation has no {path.name}")
    return web.FileResponse(path, headers=headers)


def _host_and_port(request: web.Request) -> str:
    port = request.url.explicit_port
    return visited_host(request) + (f":{port}" if port else "")


def _own_socket(request: web.Request) -> str:
    return f"{'wss' if request.secure else 'ws'}://{_host_and_port(request)}/demo/events"


async def _json_body(request: web.Request) -> bytes:
    """The body of a request. It must be JSON: browsers ask before they send JSON across sites, so no other site can
    send one.
    """
    if request.content_type != "application/json":
        raise HttpError(415, "bad_request", "the body must be application/json")
    return await request.read()


async def _parsed(request: web.Request, kind: type[T]) -> T:
    return parse(await _json_body(request), kind)

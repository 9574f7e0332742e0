"""The compared servers, each in its own processes on loopback."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench import node_peers
from bench.dialects import Dialect, Greeted, Keepline, Paired, Plain, Seat, SocketIo
from bench.load import Watched
from bench.processes import free_port, running
from keepline.cli.base.tokens import mint
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from keepline.cli.local.servers import Valkey

PEERS = Path(__file__).parent / "peers"
STOP_SECONDS = 10.0
_ROOMS_AT_ONCE = 32
_TOKEN_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Server:
    """A server, or a cluster of two: side 1 of each pair connects to the first port, side 2 to the last."""

    dialect: Dialect
    ports: tuple[int, ...]
    watched: Watched
    new_rooms: Callable[[int], AbstractAsyncContextManager[list[tuple[Seat, Seat]]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """The available servers, by name; `nodes` is the number of processes that share the clients."""

    name: str
    nodes: int
    start: Callable[[Path], AbstractAsyncContextManager[Server]] = field(repr=False)


@asynccontextmanager
async def _unregistered(count: int) -> AsyncIterator[list[tuple[Seat, Seat]]]:
    """Rooms of servers that accept any."""
    rooms = [str(uuid.uuid4()) for _ in range(count)]
    yield [(Seat(room, 1), Seat(room, 2)) for room in rooms]


# --- Keepline --------------------------------------------------------------------------------------------------


def keepline(nodes: int, profile: Path | None = None) -> Kind:
    """Signal nodes on their own Valkey. With `profile`, the first writes cProfile's data there at its end."""

    @asynccontextmanager
    async def start(folder: Path) -> AsyncIterator[Server]:
        async with AsyncExitStack() as stack:
            valkey = await stack.enter_async_context(Valkey(folder / "redis", port=free_port()))
            secret, key = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
            programs, ports = [], []
            for index in range(nodes):
                port, ops_port = free_port(), free_port()
                environment = _node_environment(index, port, ops_port, valkey.url, secret, key)
                module = python("signal_node")
                if profile is not None and index == 0:
                    module = (*python("cProfile"), "-o", str(profile), "-m", "signal_node")
                name = f"node-{index + 1}"
                command = Command(
                    name=name,
                    arguments=module,
                    log=folder / f"{name}.log",
                    environment=environment,
                    stop_seconds=STOP_SECONDS,
                )
                program = Program(command, f"http://127.0.0.1:{ops_port}")
                await program.start()
                stack.push_async_callback(program.stop)
                programs.append(program)
                ports.append(port)
            for program in programs:
                await program.until_ready()
            watched = Watched(tuple(program.pid for program in programs), (valkey.pid,))
            yield Server(Keepline(), tuple(ports), watched, _opener(programs[0].ops_url, secret, key))

    return Kind("keepline", nodes, start)


def _node_environment(
    index: int, port: int, ops_port: int, redis_url: str, secret: str, key: str
) -> dict[str, str]:
    """A node with default settings, except for limits that would end the measurement."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLINE_")}
    ours.pop("DATABASE_URL", None)
    return {
        **ours,
        "REDIS_URL": redis_url,
        "KEEPLINE_HOST": "127.0.0.1",
        "KEEPLINE_PORT": str(port),
        "KEEPLINE_OPS_PORT": str(ops_port),
        "KEEPLINE_NODE_ID": f"node-{index + 1}",
        "KEEPLINE_AUTH_SECRET": secret,
        "KEEPLINE_SERVICE_KEY": key,
        "KEEPLINE_DRAIN_SECONDS": "1",
        "KEEPLINE_LIMIT_FRAMES_PER_SECOND": "100000",
        "KEEPLINE_LIMIT_FRAMES_BURST": "1000000",
        "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "1000000",
        "KEEPLINE_NO_SHOW_SECONDS": "600",
        "KEEPLINE_LOG_FORMAT": "text",
    }


def _opener(
    ops_url: str, secret: str, key: str
) -> Callable[[int], AbstractAsyncContextManager[list[tuple[Seat, Seat]]]]:
    """Opens rooms over the HTTP API, with a token for each seat, and ends them at the end."""

    @asynccontextmanager
    async def new_rooms(count: int) -> AsyncIterator[list[tuple[Seat, Seat]]]:
        at_once = asyncio.Semaphore(_ROOMS_AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=60)
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(ops_url, timeout=timeout, headers=headers) as session:

            async def open_room() -> tuple[Seat, Seat]:
                users = uuid.uuid4(), uuid.uuid4()
                body = {"user_1": str(users[0]), "user_2": str(users[1]), "chat_mode": "video"}
                async with at_once, session.post("/v1/rooms", json=body) as response:
                    response.raise_for_status()
                    room = (await response.json())["room_id"]
                first, second = (
                    mint(user, secret, now=time.time(), ttl=_TOKEN_SECONDS, environ={}) for user in users
                )
                return Seat(room, 1, first), Seat(room, 2, second)

            async def end_room(room: str) -> None:
                async with at_once, session.delete(f"/v1/rooms/{room}") as response:
                    response.raise_for_status()

            seats = await asyncio.gather(*(open_room() for _ in range(count)))
            yield list(seats)
            await asyncio.gather(*(end_room(first.room) for first, _ in seats))

    return new_rooms


# --- the others ------------------------------------------------------------------------------------------------


def floor() -> Kind:
    """The generator's own cost."""
    return _python_peer("floor", "floor_relay.py", (), Paired())


def websockets(loop: str) -> Kind:
    """The relay on `websockets`, on the loop "asyncio" or "uvloop"."""
    return _python_peer(f"websockets/{loop}", "websockets_relay.py", (loop,), Plain())


def ws(installed: node_peers.Installed) -> Kind:
    """A minimal relay on `ws`, which answers a hello and a join."""
    return _peer("ws", lambda port: installed.command("ws_relay.mjs", str(port)), Greeted())


def _python_peer(name: str, script: str, options: tuple[str, ...], dialect: Dialect) -> Kind:
    return _peer(name, lambda port: (sys.executable, str(PEERS / script), str(port), *options), dialect)


def _peer(name: str, command: Callable[[int], tuple[str, ...]], dialect: Dialect) -> Kind:
    @asynccontextmanager
    async def start(folder: Path) -> AsyncIterator[Server]:
        port = free_port()
        arguments = command(port)
        async with running(Command(name=name, arguments=arguments, log=folder / "peer.log"), port) as child:
            yield Server(dialect, (port,), Watched((child.pid,)), _unregistered)

    return Kind(name, 1, start)


def socket_io(nodes: int, installed: node_peers.Installed) -> Kind:
    """socket.io; two of them share a Valkey with the Redis adapter."""

    @asynccontextmanager
    async def start(folder: Path) -> AsyncIterator[Server]:
        async with AsyncExitStack() as stack:
            options, redis = [], []
            if nodes > 1:
                valkey = await stack.enter_async_context(Valkey(folder / "redis", port=free_port()))
                options, redis = [valkey.url], [valkey.pid]
            children, ports = [], []
            for index in range(nodes):
                port = free_port()
                arguments = installed.command("socketio_relay.mjs", str(port), *options)
                name = f"socket.io-{index + 1}"
                command = Command(name=name, arguments=arguments, log=folder / f"{name}.log")
                children.append(await stack.enter_async_context(running(command, port)))
                ports.append(port)
            watched = Watched(tuple(child.pid for child in children), tuple(redis))
            yield Server(SocketIo(), tuple(ports), watched, _unregistered)

    return Kind("socket.io", nodes, start)

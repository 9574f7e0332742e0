"""`python -m bench.cold_start`: everything starts with an empty Redis, and Postgres has many live rooms with chat.

The nodes start together. Measured from there: the time until each is ready, until the first client (whose room is the
last in order) has its room in the welcome and has joined it, and until all rooms are restored; and how many rooms had
ended by then, because a grace period that runs before clients can connect would end calls. Sizes are as in production:
a room has some chat messages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import uvloop
from msgspec.structs import astuple

from bench.processes import cpu_seconds, free_port
from bench.rehydrate import migrated
from keepline.cli.base.tokens import mint
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from keepline.cli.local.servers import Valkey
from keepline.ops import redis
from keepline.room import keys
from keepline.room.codec import decode_record
from keepline.room.commands import Join, Open
from keepline.room.record import ChatMode, Room, Status
from keepline.room.rows import RoomRow, to_row
from keepline.room.rules import Rules
from keepline.room.state import apply

GIVE_UP_SECONDS = 200.0
WRITE_ROOMS = 5_000


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and its addresses for clients and operators."""

    program: Program
    ws: str
    ops: str


def a_call(now: int) -> Room:
    """A call in progress that has just changed."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    room, _ = apply(None, Open(ids[0], ids[1], ids[2], ChatMode.VIDEO, 3_600), now, Rules())
    room, _ = apply(room, Join(1, "node-1", "a" * 16), now, Rules())
    return apply(room, Join(2, "node-2", "b" * 16), now, Rules())[0]


def chat_of(room: Room, lines: int, now: int) -> str:
    """The chat as the persister writes it."""
    users = [side.user for side in room.sides]
    text = "a line of chat as people write them, one after the other"
    return orjson.dumps(
        [{"seq": n + 1, "from": users[n % 2], "text": text, "at": now + n} for n in range(lines)]
    ).decode()


async def write(url: str, count: int, lines: int) -> Room:
    """Write calls to Postgres, and return the one with the last id."""
    connection = await asyncpg.connect(url)
    last: Room | None = None
    try:
        for start in range(0, count, WRITE_ROOMS):
            now = round(time.time() * 1000)
            rooms = [a_call(now) for _ in range(min(WRITE_ROOMS, count - start))]
            users = [(uuid.UUID(side.user),) for room in rooms for side in room.sides]
            await connection.copy_records_to_table("users", records=users, columns=["user_id"])
            columns = (*RoomRow.__struct_fields__, "messages")
            records = [(*astuple(to_row(room)), chat_of(room, lines, now)) for room in rooms]
            await connection.copy_records_to_table("active_rooms", records=records, columns=columns)
            last = max([*rooms, *([last] if last else [])], key=lambda room: room.room_id)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
    assert last is not None
    return last


@asynccontextmanager
async def nodes(count: int, folder: Path, environ: dict[str, str]) -> AsyncIterator[list[Node]]:
    """Start nodes at the same moment, and stop them at the end."""
    started = []
    async with AsyncExitStack() as stack:
        for index in range(count):
            port, ops = free_port(), free_port()
            own = {"KEEPLINE_PORT": str(port), "KEEPLINE_OPS_PORT": str(ops), "KEEPLINE_HOST": "127.0.0.1"}
            command = Command(
                f"node-{index + 1}",
                python("signal_node"),
                folder / f"node-{index + 1}.log",
                environment={**environ, **own, "KEEPLINE_NODE_ID": f"node-{index + 1}"},
            )
            program = Program(command, f"http://127.0.0.1:{ops}")
            stack.push_async_callback(program.stop)
            started.append(Node(program, f"ws://127.0.0.1:{port}/v1", f"http://127.0.0.1:{ops}"))
        await asyncio.gather(*(node.program.start() for node in started))
        yield started


async def until_ready(web: aiohttp.ClientSession, node: Node) -> None:
    """Wait until the load balancer would send clients."""
    while True:
        try:
            async with web.get(f"{node.ops}/readyz") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)


@asynccontextmanager
async def come(web: aiohttp.ClientSession, node: Node, token: str, room_id: str) -> AsyncIterator[None]:
    """Log in and join the call as its member, and stay while the context is open."""
    async with web.ws_connect(node.ws, protocols=["keepline.v1"]) as socket:
        await socket.send_json({"type": "hello", "token": token})
        welcome = await socket.receive_json()
        held = [held["room"]["room_id"] for held in welcome.get("rooms", [])]
        if room_id not in held:
            raise SystemExit(f"the first client was told of {held}: {welcome}")
        await socket.send_json({"type": "join", "room": room_id})
        joined = await socket.receive_json()
        if joined["type"] != "joined":
            raise SystemExit(f"the first client was answered {joined}")
        yield


async def until_whole(client: Any) -> None:
    """Wait until each partition has its epoch."""
    names = [keys.epoch(partition) for partition in range(keys.DEFAULT_PARTITIONS)]
    while None in await client.mget(names):
        await asyncio.sleep(0.1)


async def statuses(client: Any) -> dict[str, int]:
    """Number of rooms in Redis, by status."""
    found: dict[str, int] = {}
    batch: list[bytes] = []
    async for name in client.scan_iter(match=f"{keys.prefix()}*:room:*", count=5_000):
        batch.append(name)
        if len(batch) == WRITE_ROOMS:
            await _count(client, batch, found)
    await _count(client, batch, found)
    return found


async def _count(client: Any, names: list[bytes], found: dict[str, int]) -> None:
    for record in await client.mget(names) if names else []:
        status = decode_record(record).status
        found[status.value] = found.get(status.value, 0) + 1
    names.clear()


async def measure(arguments: argparse.Namespace) -> None:
    """Measure once, and print."""
    folder = Path(tempfile.mkdtemp(prefix="keepline-bench-"))
    async with (
        Postgres(folder / "postgres", port=free_port(), fsync=False) as server,
        Valkey(folder / "valkey", port=free_port(), options=("--appendonly", "no")) as valkey,
        aiohttp.ClientSession() as web,
    ):
        await migrated(server.url)
        last = await write(server.url, arguments.rooms, arguments.lines)
        secret = secrets.token_urlsafe(32)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLINE_")}
        environ = clean | {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": server.url,
            "KEEPLINE_AUTH_SECRET": secret,
        }
        token = mint(uuid.UUID(last.sides[0].user), secret, now=time.time(), ttl=3_600, environ={})
        client = redis.connect(valkey.url)
        began = time.perf_counter()
        async with nodes(arguments.nodes, folder, environ) as started, asyncio.timeout(GIVE_UP_SECONDS):
            await asyncio.gather(*(until_ready(web, node) for node in started))
            ready = time.perf_counter() - began
            async with come(web, started[-1], token, last.room_id):
                first = time.perf_counter() - began
                await until_whole(client)
                whole = time.perf_counter() - began
                cpu = cpu_seconds([node.program.pid for node in started])
                redis_cpu = cpu_seconds([valkey.pid])
                found = await statuses(client)
        await client.aclose()
    print(
        f"{arguments.rooms:,} rooms with {arguments.lines} lines, {arguments.nodes} nodes, from their start:"
        f" ready after {ready:.1f} s, the first client in the call after {first:.1f} s,"
        f" all rooms back after {whole:.1f} s;"
        f" {found.get(Status.ENDED.value, 0)} of {sum(found.values()):,} ended"
    )
    if cpu is not None and redis_cpu is not None:
        print(
            f"CPU until then: nodes {cpu:.1f} s, Redis {redis_cpu:.1f} s; load of the machine {os.getloadavg()[0]:.1f}"
        )


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.cold_start", description=__doc__)
    parser.add_argument("--rooms", type=int, default=100_000, help="how many rooms (100000)")
    parser.add_argument("--lines", type=int, default=10, help="lines of chat in each (10)")
    parser.add_argument("--nodes", type=int, default=2, help="how many nodes (2)")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(parser.parse_args(sys.argv[1:])))


if __name__ == "__main__":
    main()

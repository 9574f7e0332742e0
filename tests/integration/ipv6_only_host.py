"""Run on a host that has only IPv6: two nodes there, a call between them, and what `keepline status` says of them.

`python -m tests.integration.ipv6_only_host FOLDER` prints the status, and where clients and operators find the nodes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from redis.exceptions import RedisError

from keepline.cli.base.tokens import mint
from keepline.cli.local.binaries import find_redis
from keepline.cli.local.process import Child, Command
from keepline.cli.local.program import python
from tests.acceptance.clients.bare_client import BareClient
from tests.helpers.cluster import inherited_environment
from tests.helpers.waiting import eventually

HOST = "::1"
SECRET = "a secret that is long enough for every algorithm of the family, also 512"
KEY = "a service key, 16 bytes or more"


async def main(folder: Path) -> None:
    """Start all, call, and say what was found."""
    async with AsyncExitStack() as stack:
        port = 6379  # nobody else has a port here
        options = f"--bind {HOST} --port {port} --appendonly no --dir {folder}".split()
        await started(
            stack, Command("redis", (str(find_redis().server), *options, "--save", ""), folder / "redis.log")
        )
        environ = inherited_environment() | {
            "REDIS_URL": f"redis://[{HOST}]:{port}/0",
            "KEEPLINE_AUTH_SECRET": SECRET,
            "KEEPLINE_SERVICE_KEY": KEY,
            "KEEPLINE_HOST": "::",
        }
        client = redis.asyncio.from_url(environ["REDIS_URL"])
        stack.push_async_callback(client.aclose)
        await eventually(lambda: answers(client), what="Redis answers")
        http = await stack.enter_async_context(aiohttp.ClientSession())
        nodes = {"node-1": {}, "node-2": {"KEEPLINE_OPS_HOST": "::"}}
        ports = {"node-1": (8080, 8081), "node-2": (8090, 8091)}
        for name, more in nodes.items():
            own = {"KEEPLINE_NODE_ID": name, "KEEPLINE_PORT": str(ports[name][0])}
            own |= {"KEEPLINE_OPS_PORT": str(ports[name][1])} | more
            await started(
                stack, Command(name, python("signal_node"), folder / f"{name}.log", environment=environ | own)
            )
        for name, (_, ops) in ports.items():
            ready = f"http://[{HOST}]:{ops}/readyz"
            await eventually(lambda: is_ready(http, ready), timeout=60.0, what=f"{name} is ready")  # noqa: B023
        await call(http, *ports.values())
        log = (folder / "node-1.log").read_text()

        async def answered() -> Any:
            # A node that a busy machine keeps from answering in time is "silent" in one report.
            seen = await status(environ)
            return None if any(node["state"] == "silent" for node in seen["nodes"]) else seen

        seen = await eventually(answered, timeout=60.0, what="the command reaches both nodes")
        sys.stdout.write(json.dumps({"status": seen, "log": log}))


async def started(stack: AsyncExitStack, command: Command) -> None:
    child = await Child.start(command)
    stack.push_async_callback(child.stop)


async def answers(client: Any) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False


async def is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def call(http: aiohttp.ClientSession, one: tuple[int, int], other: tuple[int, int]) -> None:
    """Two users on two nodes hear each other."""
    users = uuid.uuid4(), uuid.uuid4()
    body = {"user_1": str(users[0]), "user_2": str(users[1])}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with http.post(f"http://[{HOST}]:{other[1]}/v1/rooms", json=body, headers=headers) as answer:
        room = (await answer.json())["room_id"]
    clients = []
    for user, (port, _) in zip(users, (one, other), strict=True):
        client = await BareClient.connect(f"ws://[{HOST}]:{port}/v1")
        token = mint(user, SECRET, now=time.time(), ttl=60, environ={})
        await client.ask("hello", "welcome", token=token)
        await client.ask("join", "joined", room=room)
        clients.append(client)
    await clients[0].expect("peer", room=room, state="joined")
    await clients[0].send("signal", room=room, data={"app": "hello"})
    await clients[1].expect("signal", room=room, data={"app": "hello"})
    for client in clients:
        await client.aclose()


async def status(environ: dict[str, str]) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keepline.cli.main", "status", "--json"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return json.loads(said)


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    asyncio.run(main(Path(sys.argv[1])))

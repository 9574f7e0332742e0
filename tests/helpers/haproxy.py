"""HAProxy on this machine: with the configuration of `deploy/` but for where the nodes are, or with any other."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers.cluster import RunningNode
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
PROGRAM = shutil.which("haproxy")


def configuration(nodes: Sequence[RunningNode], port: int) -> str:
    """The configuration of `deploy/` for these nodes, with clients at `port`."""
    text = CONFIGURATION.read_text()
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}")
    text = re.sub(r"bind :(8081|8404)", lambda _: f"bind 127.0.0.1:{free_port()}", text)
    text = text.replace("check port 8081", "check").replace(
        " resolvers docker resolve-prefer ipv4 init-addr none", ""
    )

    def servers(template: re.Match[str]) -> str:
        wanted = template[1]
        lines = []
        for node in nodes:
            ops, clients = urlsplit(node.http).port, urlsplit(node.ws).port
            lines.append(f"    server {node.id} 127.0.0.1:{clients if wanted == '8080' else ops} port {ops}")
        return "\n".join(lines)

    return re.sub(r"    server-template \S+ \d+ \S+:(8080|8081)", servers, text)


@asynccontextmanager
async def haproxy(nodes: Sequence[RunningNode], folder: Path) -> AsyncIterator[str]:
    """Run the load balancer of `deploy/` while the context is open; yields the address for clients."""
    port = free_port()
    async with running_haproxy(configuration(nodes, port), port, folder):
        yield f"ws://127.0.0.1:{port}/v1"


@asynccontextmanager
async def running_haproxy(text: str, port: int, folder: Path) -> AsyncIterator[None]:
    """Run HAProxy with this configuration, which listens on `port`, while the context is open. It has to be on PATH."""
    assert PROGRAM is not None
    file = folder / "haproxy.cfg"
    file.write_text(text)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("-db", "-f", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:

        async def listens() -> bool:
            if process.returncode is not None and process.stderr is not None:
                raise RuntimeError((await process.stderr.read()).decode())
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True

        await eventually(listens, what="HAProxy listens")
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

"""The TURN server of `deploy/` on this machine, with its own configuration but for where it listens."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.helpers.ports import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "coturn" / "turnserver.conf"
PROGRAM = shutil.which("turnserver")
HOST = "127.0.0.2"
"""Loopback, but not what means the browser's own host."""


class Coturn:
    """A TURN server at `url` that may be started and killed again and again."""

    def __init__(self, folder: Path, secret: str, *, for_peers_here: bool) -> None:
        port = free_port()
        self.url = f"turn:{HOST}:{port}"
        self._file = folder / "turnserver.conf"
        text = CONFIGURATION.read_text()
        for was, now in (
            ("listening-port=3478", f"listening-port={port}"),
            ("pidfile=/tmp/turnserver.pid", f"pidfile={folder}/turnserver.pid"),
            ("userdb=/tmp/turndb", f"userdb={folder}/turndb"),
        ):
            assert was in text, was
            text = text.replace(was, now)
        if for_peers_here:
            text = "".join(line for line in text.splitlines(True) if not line.startswith("denied-peer-ip="))
            text += "allow-loopback-peers\n"
        self._file.write_text(f"{text}listening-ip={HOST}\nrelay-ip={HOST}\nstatic-auth-secret={secret}\n")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it. It may be a moment until it answers."""
        assert PROGRAM is not None
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, "-c", str(self._file), stdout=quiet, stderr=quiet
        )

    async def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def coturn(folder: Path, secret: str, *, for_peers_here: bool = False) -> AsyncIterator[Coturn]:
    """A TURN server that runs while the context is open. turnserver has to be on PATH.

    As in `deploy/` it relays to public addresses only, `for_peers_here` to those of this machine as well.
    """
    server = Coturn(folder, secret, for_peers_here=for_peers_here)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()

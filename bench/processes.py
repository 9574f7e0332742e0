"""Child processes of a measurement, and their use of resources."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from keepline.cli.local.process import Child, Command, tail

READY_SECONDS = 30.0
_POLL_SECONDS = 0.05
_LOWEST_PORT, _HIGHEST_PORT = 20_000, 32_000


class ProcessError(Exception):
    """A server did not start. The message has the end of its log."""


def free_port() -> int:
    """A free loopback port, below those that the kernel uses for outgoing connections."""
    for _ in range(200):
        port = random.randrange(_LOWEST_PORT, _HIGHEST_PORT)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ProcessError("found no free port")


@asynccontextmanager
async def running(command: Command, port: int) -> AsyncIterator[Child]:
    """A child that listens on `port`, stopped at the end. Raises ProcessError."""
    child = await Child.start(command)
    try:
        await _until_listening(child, port)
        yield child
    finally:
        await child.stop()


async def _until_listening(child: Child, port: int) -> None:
    problem = "not listening"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while child.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError as error:
                    problem = str(error)
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    writer.close()
                    return
    except TimeoutError:
        pass
    raise ProcessError(f"{child.command.name} did not start ({problem}):\n{tail(child.command.log)}")


def cpu_seconds(pids: Sequence[int]) -> float | None:
    """CPU time of the processes so far; None if there is no /proc."""
    try:
        ticks = sum(_ticks(pid) for pid in pids)
    except OSError:
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(pids: Sequence[int]) -> int | None:
    """Memory of the processes; None if there is no /proc."""
    try:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")

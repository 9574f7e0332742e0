"""Run `keepline` as an operator does: in a process of its own."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


async def keepline(*arguments: str, **environ: str) -> Done:
    """Run `keepline` with these arguments; `environ` is added to the environment of the tests."""
    return await keepline_in(None, *arguments, **environ)


async def keepline_in(folder: Path | None, *arguments: str, **environ: str) -> Done:
    """Run it in `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "keepline.cli.main",
        *arguments,
        cwd=folder,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Done(process.returncode, stdout.decode(), stderr.decode())

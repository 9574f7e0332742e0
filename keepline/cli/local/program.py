"""A signal node or a persister as a child process."""

import asyncio
import sys

import aiohttp

from keepline.cli.base.errors import CommandError
from keepline.cli.local.process import Child, Command, describe_exit, tail

READY_SECONDS = 60.0
_PROBE_SECONDS = 5.0
_POLL_SECONDS = 0.1


class Program:
    """A program that reports on `ops_url` when it is ready. It can be restarted after its death, with the same
    ports.
    """

    def __init__(self, command: Command, ops_url: str) -> None:
        self.command = command
        self.ops_url = ops_url
        self._child: Child | None = None

    @property
    def name(self) -> str:
        """Its name in messages and in the name of its log."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether it is running."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Start it. Returns at once; see `until_ready`."""
        self._child = await Child.start(self.command)

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code, negative for a signal."""
        return await self._started().wait()

    async def stop(self) -> None:
        """Let it drain and end, with SIGKILL if that takes too long. Does nothing if it is not running."""
        if self._child is not None:
            await self._child.stop()

    async def kill(self) -> None:
        """Kill it with SIGKILL. Does nothing if it is not running."""
        if self._child is not None:
            await self._child.kill()

    async def until_ready(self) -> None:
        """Wait until `/readyz` is 200. Raises CommandError with the end of its log if that fails."""
        child = self._started()
        problem = "no answer"
        timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        try:
            async with asyncio.timeout(READY_SECONDS), aiohttp.ClientSession(timeout=timeout) as session:
                while child.returncode is None:
                    try:
                        async with session.get(f"{self.ops_url}/readyz") as response:
                            if response.status == 200:
                                return
                            problem = await response.text()
                    except (aiohttp.ClientError, TimeoutError) as error:
                        problem = str(error) or type(error).__name__
                    await asyncio.sleep(_POLL_SECONDS)
                problem = describe_exit(child.returncode)
        except TimeoutError:
            problem = f"not ready after {READY_SECONDS:.0f} s: {problem}"
        log = self.command.log
        raise CommandError(f"{self.name} did not start ({problem}); end of {log}:\n{tail(log)}")

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._child


def python(module: str) -> tuple[str, ...]:
    """Command line for a module of this installation, independent of the current folder."""
    return (sys.executable, "-P", "-m", module)

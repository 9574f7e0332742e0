"""Keeps child processes running: restarts one that dies on the same ports, with increasing delays."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from keepline.cli.local.binaries import ServerError
from keepline.cli.local.process import describe_exit
from keepline.ops.backoff import Backoff
from keepline.ops.tasks import Tasks

# A child that lived this long had recovered. Its next death is a new fault, and starts with a short delay again.
_RECOVERED_SECONDS = 30.0


Notice = Callable[[str, str, int], None]
"""Called with the name of a child, what happened to it ("killed by SIGKILL", `RUNNING`) and its process id."""

RUNNING = "running"


def _backoff() -> Backoff:
    return Backoff(0.2, 10.0)


class Kept(Protocol):
    """A server or program that can be kept running."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def pid(self) -> int:
        """Process id of the last start."""

    async def start(self) -> None:
        """Start it, also after its death."""

    async def wait(self) -> int:
        """Wait until it ends."""

    async def stop(self) -> None:
        """Stop it in an orderly way."""

    async def kill(self) -> None:
        """Kill it."""


class Supervisor:
    """Owner of all children and of the tasks that watch them.

    `failed` is set to the error if the supervisor itself fails, which ends the command. `tasks` can hold other tasks
    with the same lifetime. `notice` is called for each death and each restart.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        new_backoff: Callable[[], Backoff] = _backoff,
        notice: Notice = lambda name, what, pid: None,
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._say = say
        self._notice = notice
        self._new_backoff = new_backoff
        self.tasks = Tasks(self._on_fatal)
        self._started: list[Kept] = []

    async def start(self, kept: Kept) -> None:
        """Start `kept` for the first time and own it from now on. Raises what its `start` raises."""
        self._started.append(kept)
        await kept.start()

    def watch(self, kept: Kept) -> None:
        """Restart `kept` whenever it dies."""
        self.tasks.start(f"watch {kept.name}", partial(self._keep_running, kept), restart=False)

    async def stop_watching(self) -> None:
        """End all tasks, so that nothing is restarted. Call it before `stop`."""
        await self.tasks.aclose()

    async def stop(self, some: Sequence[Kept] | None = None) -> None:
        """Stop `some`, or all that were started, concurrently."""
        await asyncio.gather(*(kept.stop() for kept in self._among(some)))

    async def kill_one(self, name: str) -> int:
        """Kill a child, which is restarted if it is watched, and return its process id. Raises LookupError."""
        running = {kept.name: kept for kept in self._started}
        if name not in running:
            raise LookupError(f"there is no {name} here; there are {', '.join(running)}")
        pid = running[name].pid
        await running[name].kill()
        return pid

    async def kill(self) -> None:
        """Kill all children."""
        await asyncio.gather(*(kept.kill() for kept in self._started))

    def _among(self, some: Sequence[Kept] | None) -> list[Kept]:
        return [kept for kept in self._started if some is None or kept in some]

    def _on_fatal(self, name: str, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _keep_running(self, kept: Kept) -> None:
        clock = asyncio.get_running_loop().time
        backoff = self._new_backoff()
        while True:
            started = clock()
            returncode = await kept.wait()
            if clock() - started > _RECOVERED_SECONDS:
                backoff.reset()
            how = describe_exit(returncode)
            self._say(f"{kept.name} (pid {kept.pid}) ended: {how}; restarting it")
            self._notice(kept.name, how, kept.pid)
            await self._start_again(kept, backoff)
            self._say(f"{kept.name} is running again (pid {kept.pid})")
            self._notice(kept.name, RUNNING, kept.pid)

    async def _start_again(self, kept: Kept, backoff: Backoff) -> None:
        while True:
            await asyncio.sleep(backoff.next())
            try:
                await kept.start()
            except (ServerError, OSError) as error:
                self._say(f"{kept.name} cannot be restarted; still trying: {error}")
            else:
                return

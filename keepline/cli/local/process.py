"""Child processes: bound to this one, with output in a log file, stopped with a deadline."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from keepline.cli.local import bound_command

STOP_SECONDS = 10.0
_KILL_SECONDS = 10.0
_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The user that a child runs as instead of root. `pass_folders` lets it through folders closed to that user."""

    uid: int
    gid: int
    pass_folders: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """The command of a child and how it ends.

    `environment` replaces ours entirely. `stop_signal` asks it to end; `stop_seconds` later it gets SIGKILL.
    `death_signal` is sent by the kernel if this process dies without stopping it.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = STOP_SECONDS
    death_signal: signal.Signals = signal.SIGKILL
    user: SystemUser | None = None

    def bound(self) -> list[str]:
        """The full command line, bound to the calling process."""
        uid, gid, pass_folders = (-1, -1, 0)
        if self.user is not None:
            uid, gid, pass_folders = self.user.uid, self.user.gid, int(self.user.pass_folders)
        binding = (os.getpid(), int(self.death_signal), uid, gid, pass_folders)
        return [sys.executable, "-I", "-S", bound_command.__file__, *map(str, binding), *self.arguments]


class Child:
    """A running child process. Its owner calls `stop` (or waits for `wait` to return) before dropping it."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self._process = process

    @classmethod
    async def start(cls, command: Command) -> Self:
        """Start `command` in its own session, with its output appended to its log.

        The session keeps Ctrl-C, which a terminal sends to the whole group, from reaching children too early. Call this
        from the main thread: on Linux a child dies with the thread that started it.
        """
        command.log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(command.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *command.bound(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=command.environment,
                cwd=command.folder,
                start_new_session=True,
            )
        finally:
            os.close(output)
        return cls(command, process)

    @property
    def pid(self) -> int:
        """Process id of the command itself; there is no process in between."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative signal number, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it ends, without a limit, and return `returncode`."""
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end, send SIGKILL after `stop_seconds`, and return `returncode`."""
        self._signal(self.command.stop_signal)
        try:
            async with asyncio.timeout(self.command.stop_seconds):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kill it with SIGKILL and return `returncode`."""
        self._signal(signal.SIGKILL)
        async with asyncio.timeout(_KILL_SECONDS):
            return await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._process.send_signal(number)


def tail(log: Path, lines: int = 12) -> str:
    """The last `lines` lines of a log file; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def describe_exit(returncode: int) -> str:
    """`returncode` in words: "exit code 2", "killed by SIGKILL"."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"

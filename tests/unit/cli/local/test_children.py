"""Child processes: bound to their parent, logged, stopped with a deadline, started again by a supervisor."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from keepline.cli.base.errors import UsageError
from keepline.cli.local import log_files
from keepline.cli.local.data_folder import data_folder
from keepline.cli.local.ports import require_free
from keepline.cli.local.process import Child, Command, describe_exit, tail
from keepline.cli.local.supervisor import Supervisor
from keepline.ops.backoff import Backoff
from tests.helpers.ports import free_port
from tests.helpers.processes import marked, new_mark
from tests.helpers.waiting import eventually

WAIT = "import signal; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
)


def program(folder: Path, code: str, **options: float) -> Command:
    return Command("sleeper", (sys.executable, "-c", code), folder / "sleeper.log", **options)  # type: ignore[arg-type]


class Sleeper:
    """A kept thing that does nothing until it is killed; its first `failures` starts fail."""

    name = "sleeper"

    def __init__(self, command: Command, failures: int = 0) -> None:
        self._command = command
        self._failures = failures
        self.child: Child | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    async def start(self) -> None:
        self.starts += 1
        if 1 < self.starts <= 1 + self._failures:
            raise OSError("no room")
        self.child = await Child.start(self._command)

    async def wait(self) -> int:
        assert self.child is not None
        return await self.child.wait()

    async def stop(self) -> None:
        assert self.child is not None
        await self.child.stop()

    async def kill(self) -> None:
        assert self.child is not None
        await self.child.kill()


async def test_a_child_is_the_command_itself_and_writes_to_its_log(tmp_path: Path) -> None:
    child = await Child.start(program(tmp_path, "import os; print(os.getpid()); print('last')"))
    assert await child.wait() == 0
    assert tail(tmp_path / "sleeper.log").split() == [str(child.pid), "last"]
    assert tail(tmp_path / "sleeper.log", 1) == "last"


async def test_a_child_that_does_not_listen_is_killed_after_its_time(tmp_path: Path) -> None:
    child = await Child.start(program(tmp_path, STUBBORN, stop_seconds=0.1))
    await eventually(lambda: "deaf" in tail(tmp_path / "sleeper.log"))
    assert await child.stop() == -signal.SIGKILL
    assert await child.stop() == -signal.SIGKILL


async def test_a_command_that_cannot_run_says_so_in_its_log(tmp_path: Path) -> None:
    child = await Child.start(Command("none", (str(tmp_path / "none"),), tmp_path / "none.log"))
    assert await child.wait() != 0
    assert "cannot run" in tail(tmp_path / "none.log")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can bind a child to its parent")
async def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    mark = new_mark()
    code = f"""
import asyncio
from pathlib import Path
from keepline.cli.local.process import Child, Command
async def main():
    await Child.start(Command("c", ({sys.executable!r}, "-c", {WAIT!r}), Path({str(tmp_path)!r}) / "c.log"))
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = Command("parent", (sys.executable, "-c", code), tmp_path / "parent.log", {**os.environ, **mark})
    child = await Child.start(parent)
    await eventually(lambda: any(command.endswith(WAIT) for command in marked(mark).values()))
    await eventually(lambda: len(marked(mark)) == 2)
    await child.kill()
    await eventually(lambda: not marked(mark))


async def test_a_child_that_dies_is_started_again_until_that_works(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append, new_backoff=lambda: Backoff(0.01, 0.02))
    sleeper = Sleeper(program(tmp_path, WAIT), failures=2)
    await supervisor.start(sleeper)
    supervisor.watch(sleeper)
    first = sleeper.pid
    try:
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: any("is running again" in text for text in said))
        assert sleeper.pid != first
        assert sleeper.starts == 4
        assert said[0] == f"sleeper (pid {first}) ended: killed by SIGKILL; restarting it"
        assert sum("no room" in text for text in said) == 2
    finally:
        await supervisor.stop_watching()
        await supervisor.stop()
    assert await sleeper.wait() == -signal.SIGTERM
    assert sleeper.starts == 4


async def test_when_watching_itself_fails_the_command_learns_of_it(tmp_path: Path) -> None:
    supervisor = Supervisor(lambda text: None)
    sleeper = Sleeper(program(tmp_path, WAIT))
    supervisor.watch(sleeper)
    with pytest.raises(AssertionError):
        await asyncio.wait_for(supervisor.failed, 5)
    await supervisor.stop_watching()


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (2, "exit code 2"), (-9, "killed by SIGKILL"), (-77, "killed by signal 77")],
)
def test_exits_are_described_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


def test_the_tail_of_no_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log") == ""


def test_logs_of_the_last_run_are_set_aside_and_long_ones_cut(tmp_path: Path) -> None:
    log, old = tmp_path / "node-1.log", tmp_path / "node-1.log.old"
    log.write_text("last run")
    log_files.set_aside(tmp_path)
    assert (log.exists(), old.read_text()) == (False, "last run")
    with log.open("a") as writer:
        writer.write("x" * 11)
        writer.flush()
        log_files.cap(tmp_path, largest=10)
        writer.write("goes on")
    assert (log.read_text(), old.read_text()) == ("goes on", "x" * 11)


def test_a_data_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "data"
    with data_folder(folder) as cut_short:
        assert not cut_short
        with (
            pytest.raises(UsageError, match=rf"pid {os.getpid()}\) is already running on"),
            data_folder(folder),
        ):
            raise AssertionError("held twice")
    with data_folder(folder) as cut_short:
        assert not cut_short


def test_a_run_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123\n")
    with data_folder(tmp_path) as cut_short:
        assert cut_short


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--data"), data_folder(tmp_path / "file" / "data"):
        raise AssertionError("made a folder in a file")


async def test_ports_in_use_are_named_with_their_purpose() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", free_port())
    port = server.sockets[0].getsockname()[1]
    listeners = [("node-1", "127.0.0.1", port), ("redis", "127.0.0.1", free_port())]
    async with server:
        with pytest.raises(UsageError, match=rf"^already in use: port {port} \(node-1\); .*--port"):
            await require_free(listeners, patient=False)
    await require_free(listeners, patient=False)


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=f"{host} is not an? .*--host"):
        await require_free([("node-1", host, free_port())], patient=False)

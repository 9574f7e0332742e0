"""A Docker Engine for a test: the one that answers, or one of our own, which ends with the test.

Our own changes nothing of the machine's network: no packet filter, no forwarding, no default bridge. Containers reach
each other on the networks of their project, and are reached through ports on loopback; nothing else is reached by them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(os.environ.get("STACK_FOLDER", "/var/tmp/keepline-stack"))
"""Where our own engine keeps its images between runs."""

SCRIPT = Path(__file__).with_name("engine.sh")
INSTALL_SECONDS = 600.0
START_SECONDS = 60.0
COMMAND_SECONDS = 300.0
_HERMETIC = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
)


class Engine:
    """An engine that answers. `environ` is what its client needs."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)

    def run(self, *command: str, timeout: float = COMMAND_SECONDS, check: bool = True) -> str:
        """Run a command with this engine; returns what it printed."""
        done = subprocess.run(
            command, env=self.environ, timeout=timeout, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def docker(self, *arguments: str, timeout: float = COMMAND_SECONDS, check: bool = True) -> str:
        """Run the docker command."""
        return self.run("docker", *arguments, timeout=timeout, check=check)

    def answers(self) -> bool:
        """Whether there is an engine, and compose to go with it."""
        if shutil.which("docker") is None:
            return False
        return all(
            subprocess.run(command, env=self.environ, timeout=60, check=False, capture_output=True).returncode
            == 0
            for command in (("docker", "version"), ("docker", "compose", "version"))
        )

    def fetch(self, *images: str) -> None:
        """Have these images: pulled, or where that is not possible a stand-in for each."""
        print(self.run(str(SCRIPT), "images", str(FOLDER), *images, timeout=INSTALL_SECONDS), end="")


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine while the context is open. Starting one needs root on Debian."""
    given = Engine(os.environ)
    if given.answers():
        yield given
        return
    may_start = os.geteuid() == 0 and shutil.which("apt-get") is not None
    assert may_start, "no Docker Engine with compose answers, and only root on Debian can start one here"
    FOLDER.mkdir(parents=True, exist_ok=True)
    socket = FOLDER / "docker.sock"
    own = Engine({**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(FOLDER / "config")})
    print(own.run(str(SCRIPT), "install", str(FOLDER), timeout=INSTALL_SECONDS), end="")
    with (FOLDER / "dockerd.log").open("w") as log:
        process = subprocess.Popen(
            ["dockerd", "-H", f"unix://{socket}", *_HERMETIC, *_places()], stdout=log, stderr=log
        )
        try:
            _wait_for(own, process)
            yield own
        finally:
            process.terminate()
            try:
                process.wait(timeout=START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=START_SECONDS)


def _places() -> tuple[str, ...]:
    names = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "docker.pid"}
    return tuple(f"{option}={FOLDER / name}" for option, name in names.items())


def _wait_for(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not engine.answers():
        log = (FOLDER / "dockerd.log").read_text()[-2_000:]
        assert process.poll() is None, f"the engine did not start:\n{log}"
        assert time.monotonic() < deadline, f"the engine does not answer:\n{log}"
        time.sleep(0.2)

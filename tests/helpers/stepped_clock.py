"""A real Redis whose clock a test sets: a few lines of C, preloaded, tell it another time of day."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from keepline.cli.local.process import Command
from keepline.cli.local.servers import Valkey

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "stepped_clock.so"


class SteppedValkey(Valkey):
    """A Valkey or Redis whose clock is off by some seconds. Starting it skips the test where there is no compiler."""

    def set_off(self, seconds: int) -> None:
        """Set its clock to so many seconds from this machine's."""
        with self._off.open("r+b" if self._off.exists() else "wb") as file:
            file.write(b"%+020d" % seconds)  # of one width, for it reads the file in any moment

    @property
    def _off(self) -> Path:
        return self.folder / "clock_off"

    async def _prepare(self) -> Command:
        command = await super()._prepare()
        self.set_off(0)
        _compile(self.folder)
        return replace(command, environment=command.environment | self.preloaded(self._off))

    def preloaded(self, off: Path) -> dict[str, str]:
        """The environment of a program whose clock is off by the seconds in a file."""
        return {"LD_PRELOAD": str(self.folder / LIBRARY), "TIME_OFFSET_FILE": str(off)}


def _compile(folder: Path) -> None:
    library = folder / LIBRARY
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is on this machine")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if made.returncode:
        pytest.skip(f"cc cannot compile {SOURCE.name}: {made.stderr.strip()[:200]}")

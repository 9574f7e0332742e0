"""Log files of the children: a few megabytes at most, and the run before this one can still be read."""

import asyncio
import shutil
from pathlib import Path

LARGEST_BYTES = 20 * 1024 * 1024
_LOOK_SECONDS = 10.0


def set_aside(folder: Path) -> None:
    """Begin with empty logs; those of the last run stay as `NAME.log.old`."""
    for log in folder.glob("*.log"):
        log.replace(log.with_suffix(".log.old"))


def cap(folder: Path, largest: int = LARGEST_BYTES) -> None:
    """Move what logs above `largest` bytes have to `NAME.log.old` and empty them.

    They are emptied in place, because their writers have them open (and append). A line that is written between
    the copy and the cut is lost.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > largest:
            shutil.copyfile(log, log.with_suffix(".log.old"))
            with log.open("r+b") as file:
                file.truncate(0)


async def keep_capped(folder: Path) -> None:
    """Look at the sizes every 10 s, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.to_thread(cap, folder)

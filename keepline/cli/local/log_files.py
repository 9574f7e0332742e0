"""Log files of the child processes: limited to a few megabytes, with the previous run's logs kept."""

import asyncio
import shutil
from pathlib import Path

LARGEST_BYTES = 20 * 1024 * 1024
_LOOK_SECONDS = 10.0


def set_aside(folder: Path) -> None:
    """Start with empty logs. Those of the last run become `NAME.log.old`."""
    for log in folder.glob("*.log"):
        log.replace(log.with_suffix(".log.old"))


def cap(folder: Path, largest: int = LARGEST_BYTES) -> None:
    """Move the content of logs above `largest` bytes to `NAME.log.old`.

    The logs are truncated in place, because their writers have them open (and append). A line that is written between
    the copy and the truncation is lost.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > largest:
            shutil.copyfile(log, log.with_suffix(".log.old"))
            with log.open("r+b") as file:
                file.truncate(0)


async def keep_capped(folder: Path) -> None:
    """Check the sizes every 10 s, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.to_thread(cap, folder)

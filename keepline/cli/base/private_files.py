"""Files that only their owner can read."""

import os
from pathlib import Path


def create_private(path: Path, text: str) -> None:
    """Write `text` to a new file that only its owner can read. Raises FileExistsError if the file exists.

    The file appears with its full text or not at all.
    """
    unfinished = _write_beside(path, text)
    try:
        os.link(unfinished, path)
    finally:
        unfinished.unlink()


def replace_private(path: Path, text: str) -> None:
    """Like `create_private`, but replaces an existing file."""
    _write_beside(path, text).replace(path)


def _write_beside(path: Path, text: str) -> Path:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return unfinished

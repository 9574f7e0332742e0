"""Files that only their owner may read."""

import os
from pathlib import Path


def create_private(path: Path, text: str) -> None:
    """Write `text` to a new file that only its owner may read; raises FileExistsError when there is one.

    The file appears with all of its text or not at all.
    """
    unfinished = _write_beside(path, text)
    try:
        os.link(unfinished, path)
    finally:
        unfinished.unlink()


def replace_private(path: Path, text: str) -> None:
    """As `create_private`, in the place of a file that may be there."""
    _write_beside(path, text).replace(path)


def _write_beside(path: Path, text: str) -> Path:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return unfinished

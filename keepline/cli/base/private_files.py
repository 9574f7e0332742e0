"""Files that only their owner may read."""

import os
from pathlib import Path


def create_private(path: Path, text: str) -> None:
    """Write `text` to a new file that only its owner may read; raises FileExistsError when there is one.

    The file appears with all of its text or not at all.
    """
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    try:
        os.link(unfinished, path)
    finally:
        unfinished.unlink()

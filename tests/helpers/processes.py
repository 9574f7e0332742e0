"""Look at the processes of this machine, to see that none was left behind (Linux)."""

import uuid
from pathlib import Path

MARK = "STARTED_BY_TEST"


def new_mark() -> dict[str, str]:
    """An environment variable for a process to start; all that come of it inherit it."""
    return {MARK: uuid.uuid4().hex}


def marked(mark: dict[str, str]) -> dict[int, str]:
    """Ids and command lines of the living processes that carry `mark`."""
    needle = "".join(f"{name}={value}" for name, value in mark.items()).encode()
    return {
        int(entry.name): _text(entry / "cmdline").replace("\0", " ").strip()
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and needle in _bytes(entry / "environ") and _living(entry)
    }


def _living(entry: Path) -> bool:
    return _text(entry / "stat").rpartition(") ")[2][:1] not in {"", "Z"}


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""

"""Look at the processes of this machine, to see that none was left behind (Linux)."""

import uuid
from collections.abc import Callable
from pathlib import Path

MARK = "STARTED_BY_TEST"


def new_mark() -> dict[str, str]:
    """An environment variable for a process to start; all that come of it inherit it."""
    return {MARK: uuid.uuid4().hex}


def marked(mark: dict[str, str]) -> dict[int, str]:
    """Ids and command lines of the living processes that carry `mark`.

    PostgreSQL's do not: they write their titles over their environment. See `working_in`.
    """
    needle = "".join(f"{name}={value}" for name, value in mark.items()).encode()
    return _living(lambda entry: needle in _bytes(entry / "environ"))


def working_in(folder: Path) -> dict[int, str]:
    """Ids and command lines of the living processes whose working folder is `folder` or below it."""
    folder = folder.resolve()

    def works_there(entry: Path) -> bool:
        try:
            return (entry / "cwd").readlink().is_relative_to(folder)
        except OSError:  # gone meanwhile, or another user's
            return False

    return _living(works_there)


def _living(chosen: Callable[[Path], bool]) -> dict[int, str]:
    return {
        int(entry.name): _text(entry / "cmdline").replace("\0", " ").strip()
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and chosen(entry) and not _ended(entry)
    }


def _ended(entry: Path) -> bool:
    return _text(entry / "stat").rpartition(") ")[2][:1] in {"", "Z"}


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""

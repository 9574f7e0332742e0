"""The data folder of `keepline up`: made once, used by one at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keepline.cli.base.errors import UsageError

_IGNORE_EVERYTHING = "# made by keepline up\n*\n"


@contextmanager
def data_folder(path: Path) -> Iterator[bool]:
    """Hold the folder at `path`, made where missing; yields whether the run before this one was cut short.

    Raises UsageError when another `keepline up` holds it, or it cannot be written. The kernel lets go of it when we
    die, however that happens.
    """
    try:
        # Open to walk through, not to list: as root, PostgreSQL below it runs as another user.
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot use {path} for data: {error.strerror}; choose another with --data"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode().strip()
            raise UsageError(
                f"keepline up (pid {holder}) already runs on {path}: stop it, or choose another with --data"
            ) from None
        cut_short = os.pread(lock, 20, 0) != b""
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        (path / ".gitignore").write_text(_IGNORE_EVERYTHING)
        try:
            yield cut_short
        finally:
            os.ftruncate(lock, 0)
    finally:
        os.close(lock)

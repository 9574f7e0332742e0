"""The data folder of `keepline up`: created once, used by one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keepline.cli.base.errors import UsageError

_IGNORE_EVERYTHING = "# made by keepline up\n*\n"


@contextmanager
def data_folder(path: Path) -> Iterator[bool]:
    """Hold the folder at `path`, creating it if it is missing. Yields whether the previous run was cut short.

    Raises UsageError if another `keepline up` holds it, or if it is not writable. The kernel releases it when this
    process ends, in whatever way.
    """
    try:
        # Allow traversing but not listing it: if this runs as root, PostgreSQL in it runs as another user.
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
                f"keepline up (pid {holder}) is already running on {path}: stop it, or choose another with --data"
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

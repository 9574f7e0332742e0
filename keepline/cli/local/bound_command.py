"""Run a command that ends with the process that started it.

`keepline up` may be killed in ways that leave it no chance to stop its children (SIGKILL, the kernel running out of
memory). On Linux a process can request a signal for its parent's death, but it must do so itself, after any change of
user and before it becomes the command. So this script runs in between: it requests the signal, drops root if told to,
and turns into the command with exec, which keeps the process id. On other systems than Linux it makes no request, and a
killed `keepline up` may leave children behind.

It is run by path with `python -I -S` and imports only the standard library, which costs some 20 ms and nothing else.

    python -I -S bound.py PARENT DEATH_SIGNAL UID GID PASS COMMAND…

UID and GID are -1 to keep the current user. PASS is 1 if that user cannot traverse the folders of the command (root's
checkout in a private folder). Then it keeps the one capability that bypasses file permissions. That is hardly safer
than root, but root asked for it, and PostgreSQL, which refuses to run as root, runs.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _prctl(libc: ctypes.CDLL, option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _keep_only(libc: ctypes.CDLL, capability: int) -> None:
    """Drop all capabilities of this process and of what it executes, except `capability`."""
    header = _Header(CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    sets[0] = _Sets(1 << capability, 1 << capability, 1 << capability)
    if libc.capset(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def become(libc: ctypes.CDLL | None, uid: int, gid: int, *, pass_folders: bool) -> None:
    """Drop root for `uid` and `gid`. With `pass_folders`, folders that are closed to them stay passable."""
    if pass_folders and libc is None:
        raise OSError("this system does not let another user traverse closed folders")
    if pass_folders and libc is not None:
        # Without it, access(2) ignores the capability, and PostgreSQL relies on access(2).
        _prctl(libc, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if pass_folders and libc is not None:
        _keep_only(libc, CAP_DAC_OVERRIDE)


def main(arguments: list[str]) -> None:
    """Become the command of `arguments`. Never returns."""
    parent, death_signal, uid, gid, pass_folders = (int(word) for word in arguments[:5])
    command = arguments[5:]
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if uid >= 0:
        try:
            become(libc, uid, gid, pass_folders=pass_folders == 1)
        except OSError as error:
            sys.exit(
                f"cannot drop root here ({error}): run as another user, or use folders that every user may traverse"
            )
    if libc is not None:
        _prctl(libc, PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # the parent died before the request was made
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])

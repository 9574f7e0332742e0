"""Run one command whose life is bound to the process that started it.

`keepline up` may be killed in ways that leave it no chance to stop its children (SIGKILL, the kernel
running out of memory). On Linux a process can ask for a signal at its parent's death, but only it can ask,
after any change of user and before it becomes the command. So this file runs in between: it asks, gives up
root where told to, and turns into the command with exec, which keeps the process id. Elsewhere than on
Linux the request is left out, and a killed `keepline up` may leave children behind.

It is run by path with `python -I -S` and imports the standard library only, to add some 20 ms and nothing
else.

    python -I -S bound.py PARENT DEATH_SIGNAL UID GID PASS COMMAND…

UID and GID are -1 to stay who we are. PASS is 1 where that user may not walk to the files of the command
(root's checkout in a private folder): then it keeps the one capability to which file permissions mean nothing.
That is hardly safer than root, but it is what root asked for, and PostgreSQL, which refuses root, runs.
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
    """Leave this process, and what it executes, with `capability` and no other."""
    header = _Header(CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    sets[0] = _Sets(1 << capability, 1 << capability, 1 << capability)
    if libc.capset(ctypes.byref(header), sets) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")
    _prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def become(libc: ctypes.CDLL | None, uid: int, gid: int, *, pass_folders: bool) -> None:
    """Give up root for `uid` and `gid`; with `pass_folders`, folders closed to them stay passable."""
    if pass_folders and libc is None:
        raise OSError("this system does not let another user traverse closed folders")
    if pass_folders and libc is not None:
        # Without it, access(2) leaves the capability out of account, and PostgreSQL believes access(2).
        _prctl(libc, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if pass_folders and libc is not None:
        _keep_only(libc, CAP_DAC_OVERRIDE)


def main(arguments: list[str]) -> None:
    """Become the command of `arguments`; never returns."""
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
        if os.getppid() != parent:  # it died before the request stood
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])

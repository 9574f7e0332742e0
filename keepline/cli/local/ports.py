"""Finds ports in use before anything starts, and the address of this machine for others."""

import asyncio
import errno
import socket
from collections.abc import Sequence

from keepline.cli.base.errors import UsageError
from keepline.cli.local.layout import LOOPBACK

_LEFTOVER_SECONDS = 10.0
_POLL_SECONDS = 0.1
_OUTSIDE = "192.0.2.1"  # reserved for documentation


async def require_free(listeners: Sequence[tuple[str, str, int]], *, patient: bool) -> None:
    """Raise UsageError with every (name, host, port) of `listeners` on which something listens.

    With `patient`, wait up to 10 s for the leftovers of an earlier run to go.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + (_LEFTOVER_SECONDS if patient else 0.0)
    while busy := [(name, port) for name, host, port in listeners if not _is_free(host, port)]:
        if clock() >= deadline:
            named = ", ".join(f"{port} ({name})" for name, port in busy)
            raise UsageError(f"already in use: port {named}; choose others with --port")
        await asyncio.sleep(_POLL_SECONDS)


def lan_address() -> str:
    """This machine's address on its outgoing network; loopback if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            # Connecting a datagram socket sends nothing. It only makes the kernel choose our address.
            asking.connect((_OUTSIDE, 9))
        except OSError:
            return LOOPBACK
        return str(asking.getsockname()[0])


def required_lan_address() -> str:
    """The same. Raises UsageError if there is no network."""
    address = lan_address()
    if address == LOOPBACK:
        raise UsageError("this machine has no network: set its address with --lan-address")
    return address


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # Like the programs: connections in TIME_WAIT do not matter.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except socket.gaierror:
        raise UsageError(f"{host} is not a known address: see --host and --lan-address") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(
                f"{host} is not an address of this machine: see --host and --lan-address"
            ) from None
        if error.errno == errno.EACCES:
            raise UsageError(f"port {port} needs root privileges; choose a port above 1023") from None
        return False
    return True

"""Free TCP ports on loopback.

They lie below the range from which the kernel takes ports for outgoing connections: a client that retries a
dead server could otherwise be given the server's own port and keep it from coming back.
"""

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000


def free_port() -> int:
    """A port nobody listens on."""
    return free_block(1)


def free_block(size: int) -> int:
    """The first of `size` ports in a row on which nobody listens."""
    for _ in range(200):
        first = random.randrange(LOWEST, HIGHEST - size)
        if all(is_free(port) for port in range(first, first + size)):
            return first
    raise RuntimeError(f"found no {size} free ports in a row")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""The work that one connection, and one address, may cause on a node.

Work is charged where it arises, in milliseconds of the event loop. All clients share the event loop, and every frame,
byte or Redis lookup takes time from the others. `COSTS` has the price of each. The prices were measured once and
rounded up, and need to be accurate only within a factor of two.

A connection that has spent its budget (`keepline.ops.budget`) is not closed but slowed down: the node stops reading
from it until it has credit again, and TCP makes the client wait. So a budget needs no queue, and an honest client that
exceeds it briefly loses nothing. A connection's work also counts for its address, whose budget is larger. If the
address exceeds it, only those of its connections that cause work are slowed down.

Control frames and fragments are cheap to send but not to read, and no honest client sends many. They have their own
bucket, separate from the session's bucket for texts. A connection that exceeds it is closed with 4429.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of the event loop."""

    frame: float = 0.02
    kib_received: float = (
        0.04  # 64 KiB take 0.2 ms to relay here, and are also packed, published and unpacked
    )
    kib_answered: float = 0.01
    read: float = 0.5  # a hello, a join, a report: requests that read from Redis
    # a join, a chat message, a leave: what is written to Redis and sent to the other node
    change: float = 1.0
    handshake: float = 0.4


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Allowances:
    """Milliseconds of work per second, and per burst, of a connection and of all connections of an address."""

    connection: float = 10.0
    connection_burst: float = 100.0
    address: float = 200.0
    address_burst: float = 300.0

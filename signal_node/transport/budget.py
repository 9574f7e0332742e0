"""What one connection, and one address, may make a node do.

Work is counted where it arises, in milliseconds of the event loop: that is what everybody shares, and what a frame, a
byte or a question to Redis takes from the others. `COSTS` says how much each is taken for; they were measured once and
rounded up, and need to be right only to a factor of two.

Whoever has spent the budget (`keepline.ops.budget`) is not punished but slowed down: nothing more is read from the
connection until it is in credit again, and TCP makes the client wait. So a budget needs no queue, and an honest client
that is over it for once loses nothing. A connection's work also counts for its address, whose budget is larger; what
is over that slows down the connections of that address that cause it, and nobody else.

Control frames and fragments are cheap to send and not to read, and no honest client sends many. They have a bucket of
their own beside the session's one for texts, and whoever goes beyond it is closed with 4429.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of the loop."""

    frame: float = 0.02
    kib_received: float = (
        0.04  # 64 KiB are relayed in 0.2 ms here, and packed, published and unpacked elsewhere
    )
    kib_answered: float = 0.01
    read: float = 0.5  # a hello, a join, a report: what has something read from Redis
    change: float = 0.5  # a join, a line of chat, a leave: what is written there, and told to the other node
    handshake: float = 0.4


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Allowances:
    """Milliseconds of work a second, and at once, of a connection and of all connections of an address."""

    connection: float = 10.0
    connection_burst: float = 100.0
    address: float = 200.0
    address_burst: float = 300.0

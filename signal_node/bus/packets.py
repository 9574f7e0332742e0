"""What travels between nodes.

A packet is `P`, the length of the sender's name and the name (the node and the start of its process), a u64 that counts
the sender's packets to this node, then items of `kind`, the session (16 bytes), a u32 length and the payload; items of
an unknown kind are skipped. Now and then one of them is the time, on the cluster's clock, at which a frame of the
packet was sent: so the receiver knows how long the way between the nodes takes. A notice is `N` and its JSON, a probe
is `?` and the sender's name.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence

from signal_node.protocol.session import SESSION_ID_BYTES

PACKET, NOTICE, PROBE = ord("P"), ord("N"), ord("?")
FRAME, REPLACED, TIME, SLOW = ord("F"), ord("R"), ord("T"), ord("S")
BY_BACKEND = b"B"
"""The payload of `REPLACED` where no newer session is the reason. A node of an older release does not look at it."""

ITEM = struct.Struct(f">B{SESSION_ID_BYTES}sI")
NUMBER = struct.Struct(">Q")
SECONDS = struct.Struct(">d")


def sender_name(node: str) -> str:
    """A name for this process of a node: packets are counted by it."""
    return f"{node}/{secrets.token_hex(4)}"


def pack_item(kind: int, session: str, payload: bytes) -> bytes:
    """An item of a packet."""
    return ITEM.pack(kind, session.encode(), len(payload)) + payload


def pack(sender: str, number: int, items: Sequence[bytes]) -> bytes:
    """A packet."""
    name = sender.encode()
    return b"".join((bytes((PACKET, len(name))), name, NUMBER.pack(number), *items))


def probe(sender: str) -> bytes:
    """What a node publishes to its own inbox."""
    return bytes((PROBE,)) + sender.encode()


def notice(payload: bytes) -> bytes:
    """A notice as the commit script publishes it."""
    return b"N" + payload

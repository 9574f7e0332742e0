"""The format of data between nodes.

A packet is `P`, the length of the sender's name and the name (the node and the start of its process), a u64 that counts
the sender's packets to this node, then items of `kind`, the session (16 bytes), a u32 length and the payload. Items of
an unknown kind are skipped. Occasionally an item is the cluster time at which a frame of the packet was sent, from
which the receiver computes the latency between the nodes. A notice is `N` and its JSON, a probe is `?` and the sender's
name.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence

from signal_node.protocol.session import SESSION_ID_BYTES

PACKET, NOTICE, PROBE = ord("P"), ord("N"), ord("?")
FRAME, REPLACED, TIME, SLOW = ord("F"), ord("R"), ord("T"), ord("S")
BY_BACKEND = b"B"
"""The payload of `REPLACED` if the reason is not a newer session. Nodes of older releases ignore it."""

ITEM = struct.Struct(f">B{SESSION_ID_BYTES}sI")
NUMBER = struct.Struct(">Q")
SECONDS = struct.Struct(">d")


def sender_name(node: str) -> str:
    """A name for this process of a node, by which packets are counted."""
    return f"{node}/{secrets.token_hex(4)}"


def pack_item(kind: int, session: str, payload: bytes) -> bytes:
    """An item of a packet."""
    return ITEM.pack(kind, session.encode(), len(payload)) + payload


def pack(sender: str, number: int, items: Sequence[bytes]) -> bytes:
    """A packet."""
    name = sender.encode()
    return b"".join((bytes((PACKET, len(name))), name, NUMBER.pack(number), *items))


def probe(sender: str) -> bytes:
    """The probe that a node publishes to its own inbox."""
    return bytes((PROBE,)) + sender.encode()


def notice(payload: bytes) -> bytes:
    """A notice, in the form that the commit script publishes."""
    return b"N" + payload

"""Where commands belong on a Redis Cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from keepline.ops.redis.urls import Address

Ranges = tuple[tuple[int, int, Address], ...]
"""First slot, last slot and their primary."""

ON_EVERY_SERVER = frozenset({"PING", "SCRIPT LOAD", "SCRIPT FLUSH", "FLUSHALL"})
_ON_ANY_SERVER = frozenset({"TIME"})


@dataclass(frozen=True, slots=True)
class SlotView:
    """The map according to one server: which primary has which slots, and all servers."""

    masters: Ranges
    servers: frozenset[Address]


def view_in(slots: Sequence[Sequence[Any]], answering: Address) -> SlotView:
    """Parse the answer to CLUSTER SLOTS. A server that does not know its host gets the one that was asked."""
    masters, servers = [], []
    for first, last, *holders in slots:
        found = [((holder[0] or b"").decode() or answering[0], int(holder[1])) for holder in holders]
        masters.append((first, last, found[0]))
        servers += found
    return SlotView(tuple(sorted(masters)), frozenset(servers))


def slot_of(args: Sequence[Any]) -> int:
    """The slot of a command's first key. Raises ValueError for a command without a key."""
    key = _key_of(args)
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _key_of(args: Sequence[Any]) -> Any:
    command = args[0]
    if command in ("EVALSHA", "EVAL"):
        return args[3]
    if command == "XREADGROUP":
        return args[args.index(b"STREAMS") + 1]
    if command in _ON_ANY_SERVER:
        return b""
    if len(args) < 2 or command in ON_EVERY_SERVER:
        raise ValueError(f"{command} has no key to find its server by")
    return args[1]

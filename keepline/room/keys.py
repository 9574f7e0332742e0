"""Where things stand in Redis. The only place that spells a key or a channel.

Every name begins with the prefix of this cluster, so that an app's keys and another cluster's are not met; a program
sets it once, at its start. In every key of a room the partition follows as a hash tag, `{p07}`, so that on a Redis
Cluster all keys that one commit touches live on one shard. The partition is the CRC-16 that Redis Cluster itself uses
for its slots (CRC-16/XMODEM, Redis Cluster specification, appendix A) modulo the number of partitions.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable

DEFAULT_PREFIX = "keepline:"
DEFAULT_PARTITIONS = 16

_prefix = DEFAULT_PREFIX


def use_prefix(prefix: str) -> None:
    """Begin every name with this from now on. Without one the names are those of the first releases."""
    global _prefix  # noqa: PLW0603 - one program serves one cluster
    _prefix = prefix


def prefix() -> str:
    """What every name begins with."""
    return _prefix


def partitions() -> str:
    """String: how many partitions this Redis was set up with; written once, at the first start."""
    return f"{_prefix or DEFAULT_PREFIX}partitions"


def persisters() -> str:
    """Hash: what each persister says of itself, by its name."""
    return f"{_prefix or DEFAULT_PREFIX}persisters"


def partition_of(room_id: str, partitions: int) -> int:
    """The partition of a room, or of an IP address or a referral; 0 to partitions - 1."""
    return crc_hqx(room_id.encode(), 0) % partitions


def tag(partition: int) -> str:
    """The hash tag of a partition."""
    return f"{{p{partition:02d}}}"


def _in(partition: int) -> str:
    return f"{_prefix}{{p{partition:02d}}}"


def room(partition: int, room_id: str) -> str:
    """String: the record."""
    return f"{_in(partition)}:room:{room_id}"


def rooms(room_ids: Iterable[str], partitions: int) -> list[str]:
    """The records of many rooms, whatever their partitions: `room` of each, in half the time."""
    tags = [_in(partition) for partition in range(partitions)]
    return [f"{tags[partition_of(room_id, partitions)]}:room:{room_id}" for room_id in room_ids]


def chat(partition: int, room_id: str) -> str:
    """Stream: the room's chat."""
    return f"{_in(partition)}:chat:{room_id}"


def trace(partition: int, room_id: str) -> str:
    """Stream with a TTL: what became of the room, transition by transition, for operators."""
    return f"{_in(partition)}:trace:{room_id}"


def events(partition: int) -> str:
    """Stream: what the persister consumes."""
    return f"{_in(partition)}:events"


MAX_EVENTS = 200_000
"""Events that a partition keeps while nobody consumes them, about; the oldest give way."""


def dead_letters(partition: int) -> str:
    """Stream: events that could not be written, with the reason."""
    return f"{_in(partition)}:dead-letters"


def deadlines(partition: int) -> str:
    """Sorted set: room ids by the ms at which something is due."""
    return f"{_in(partition)}:deadlines"


def ended(partition: int) -> str:
    """Sorted set: rooms that have ended by the ms at which they are forgotten."""
    return f"{_in(partition)}:ended"


def held(partition: int, node: str) -> str:
    """Set: rooms of the partition that have a side on the node."""
    return f"{_in(partition)}:held:{node}"


def epoch(partition: int) -> str:
    """String: there as long as this part of Redis has not lost its data."""
    return f"{_in(partition)}:epoch"


def inbox(node: str, partition: int | None = None) -> str:
    """Channel: what is meant for a node's clients; on a Redis Cluster there is one for each partition."""
    return f"{_prefix}inbox:{node}" if partition is None else f"{_in(partition)}:inbox:{node}"


def user(user_id: str) -> str:
    """String: the session that holds a user, and where."""
    return f"{_prefix}user:{user_id}"


def user_rooms(user_id: str) -> str:
    """Set: ids of the user's live rooms; derived, best effort."""
    return f"{_prefix}user:{user_id}:rooms"


def node(node_id: str) -> str:
    """String: a node's heartbeat."""
    return f"{_prefix}node:{node_id}"


def nodes() -> str:
    """Sorted set: ids of nodes, those that died too until they are cleared away, by the ms of their last heartbeat."""
    return f"{_prefix}nodes"


def scratch() -> str:
    """A key that nobody uses: rights are tried on it."""
    return f"{_in(0)}:check"


def addresses() -> str:
    """Hash: the ops port of each node, known also while its heartbeat cannot be written."""
    return f"{_prefix}addresses"


def clock() -> str:
    """String: by how much the cluster's time differs from Redis' clock since that has stepped."""
    return f"{_prefix}clock"


def lease(partition: int, name: str) -> str:
    """String with a TTL: who does a piece of work on the partition that one node is to do at a time."""
    return f"{_in(partition)}:lease:{name}"


def restored(partition: int) -> str:
    """Set with a TTL: nodes that have put back what they hold of a partition that was lost."""
    return f"{_in(partition)}:restored"


def referral(partition: int, code: str) -> str:
    """String with a TTL: the referral behind a code."""
    return f"{_in(partition)}:referral:{code}"


def reports(partition: int, room_id: str, user_id: str) -> str:
    """Set with a TTL: ids of what a user has reported of a room."""
    return f"{_in(partition)}:limit:report:{room_id}:{user_id}"


def reported_chat(partition: int, room_id: str) -> str:
    """String with a TTL: up to which line the chat of a room has been reported, and in which report."""
    return f"{_in(partition)}:reported:{room_id}"


def failed_logins(partition: int, address: str) -> str:
    """Sorted set with a TTL: the failed logins of an address, by their ms."""
    return f"{_in(partition)}:limit:login:{address}"


def open_connections(partition: int, address: str) -> str:
    """Hash with a TTL: how many connections of an address each process of a node has."""
    return f"{_in(partition)}:limit:conn:{address}"


# For SCAN, which only the command of operators uses.


def all_rooms() -> str:
    """The pattern of all `room` keys."""
    return f"{_prefix}{{p??}}:room:*"


def all_held() -> str:
    """The pattern of all `held` keys."""
    return f"{_prefix}{{p??}}:held:*"


def all_users() -> str:
    """The pattern of all `user` and `user_rooms` keys."""
    return f"{_prefix}user:*"


def user_in(name: str) -> str:
    """The user of a `user` or `user_rooms` key."""
    return name.removeprefix(f"{_prefix}user:").removesuffix(":rooms")


# What the first releases had, whose names had no prefix.

UNPREFIXED_EPOCH = "{p00}:epoch"
UNPREFIXED_NODES = "nodes"
UNPREFIXED_ROOMS = "{p??}:*"
UNPREFIXED_USERS = "user:*"


def unprefixed_node(node_id: str) -> str:
    """String: a node's heartbeat."""
    return f"node:{node_id}"

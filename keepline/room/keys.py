"""The names of all keys and channels in Redis. No other module defines any.

Every name starts with the prefix of this cluster, so that an app or another cluster can share the Redis. A program sets
the prefix once, at startup. The keys of a room continue with their partition as a hash tag, `{p07}`, so that on a Redis
Cluster all keys of one commit are on one shard. The partition is the CRC-16 that Redis Cluster itself uses for its
slots (CRC-16/XMODEM, Redis Cluster specification, appendix A) modulo the number of partitions.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable

DEFAULT_PREFIX = "keepline:"
DEFAULT_PARTITIONS = 16

_prefix = DEFAULT_PREFIX


def use_prefix(prefix: str) -> None:
    """Set the prefix of all names. Without a prefix, the names are those of the first releases."""
    global _prefix  # noqa: PLW0603 - one program serves one cluster
    _prefix = prefix


def prefix() -> str:
    """The prefix of all names."""
    return _prefix


def partitions() -> str:
    """String: the number of partitions of this Redis, written once, at the first start."""
    return f"{_prefix or DEFAULT_PREFIX}partitions"


def persisters() -> str:
    """Hash: the presence record of each persister, by name."""
    return f"{_prefix or DEFAULT_PREFIX}persisters"


def partition_of(room_id: str, partitions: int) -> int:
    """The partition of a room, an IP address or a referral, from 0 to `partitions` - 1."""
    return crc_hqx(room_id.encode(), 0) % partitions


def tag(partition: int) -> str:
    """The hash tag of a partition."""
    return f"{{p{partition:02d}}}"


def _in(partition: int) -> str:
    return f"{_prefix}{{p{partition:02d}}}"


def room(partition: int, room_id: str) -> str:
    """String: the record of a room."""
    return f"{_in(partition)}:room:{room_id}"


def rooms(room_ids: Iterable[str], partitions: int) -> list[str]:
    """The `room` keys of many rooms of any partitions, in half the time."""
    tags = [_in(partition) for partition in range(partitions)]
    return [f"{tags[partition_of(room_id, partitions)]}:room:{room_id}" for room_id in room_ids]


def chat(partition: int, room_id: str) -> str:
    """Stream: the room's chat."""
    return f"{_in(partition)}:chat:{room_id}"


def trace(partition: int, room_id: str) -> str:
    """Stream with a TTL: the transitions of the room, for operators."""
    return f"{_in(partition)}:trace:{room_id}"


def events(partition: int) -> str:
    """Stream: the events for the persister."""
    return f"{_in(partition)}:events"


MAX_EVENTS = 200_000
"""Approximate number of unread events that a partition keeps. Beyond it, the oldest are dropped."""


def dead_letters(partition: int) -> str:
    """Stream: events that could not be written, with the reason."""
    return f"{_in(partition)}:dead-letters"


def deadlines(partition: int) -> str:
    """Sorted set: room ids by the ms of their next deadline."""
    return f"{_in(partition)}:deadlines"


def ended(partition: int) -> str:
    """Sorted set: ended rooms by the ms at which they are deleted."""
    return f"{_in(partition)}:ended"


def held(partition: int, node: str) -> str:
    """Set: rooms of the partition that have a side on the node."""
    return f"{_in(partition)}:held:{node}"


def epoch(partition: int) -> str:
    """String: exists as long as this partition has not lost its data."""
    return f"{_in(partition)}:epoch"


def inbox(node: str, partition: int | None = None) -> str:
    """Channel: messages for a node's clients. On a Redis Cluster there is one per partition."""
    return f"{_prefix}inbox:{node}" if partition is None else f"{_in(partition)}:inbox:{node}"


def user(user_id: str) -> str:
    """String: the session that holds a user, and its node."""
    return f"{_prefix}user:{user_id}"


def user_rooms(user_id: str) -> str:
    """Set: ids of the user's live rooms; derived, best effort."""
    return f"{_prefix}user:{user_id}:rooms"


def node(node_id: str) -> str:
    """String: a node's heartbeat."""
    return f"{_prefix}node:{node_id}"


def nodes() -> str:
    """Sorted set: ids of nodes by the ms of their last heartbeat, including dead ones that are not cleaned up yet."""
    return f"{_prefix}nodes"


def scratch() -> str:
    """An unused key, for testing rights."""
    return f"{_in(0)}:check"


def addresses() -> str:
    """Hash: the ops port of each node, known even while its heartbeat cannot be written."""
    return f"{_prefix}addresses"


def clock() -> str:
    """String: the correction of Redis' clock after it was stepped."""
    return f"{_prefix}clock"


def lease(partition: int, name: str) -> str:
    """String with a TTL: the node that does a piece of exclusive work on the partition."""
    return f"{_in(partition)}:lease:{name}"


def restored(partition: int) -> str:
    """Set with a TTL: nodes that have written back what they hold of a lost partition."""
    return f"{_in(partition)}:restored"


def referral(partition: int, code: str) -> str:
    """String with a TTL: the referral behind a code."""
    return f"{_in(partition)}:referral:{code}"


def idempotency(partition: int, digest: str) -> str:
    """String with a TTL: the room that a request of the app's backend has opened, and when."""
    return f"{_in(partition)}:idempotency:{digest}"


def reports(partition: int, room_id: str, user_id: str) -> str:
    """Set with a TTL: ids of a user's reports about a room."""
    return f"{_in(partition)}:limit:report:{room_id}:{user_id}"


def reported_chat(partition: int, room_id: str) -> str:
    """String with a TTL: the last chat message that a report contains, and that report's id."""
    return f"{_in(partition)}:reported:{room_id}"


def failed_logins(partition: int, address: str) -> str:
    """Sorted set with a TTL: the failed logins of an address, by their ms."""
    return f"{_in(partition)}:limit:login:{address}"


def open_connections(partition: int, address: str) -> str:
    """Hash with a TTL: number of connections of an address, per process of a node."""
    return f"{_in(partition)}:limit:conn:{address}"


# For SCAN, which only the operators' command uses.


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


# Names of the first releases, which had no prefix.

UNPREFIXED_EPOCH = "{p00}:epoch"
UNPREFIXED_NODES = "nodes"
UNPREFIXED_ROOMS = "{p??}:*"
UNPREFIXED_USERS = "user:*"


def unprefixed_node(node_id: str) -> str:
    """String: a node's heartbeat."""
    return f"node:{node_id}"

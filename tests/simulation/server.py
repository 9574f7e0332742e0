"""A Redis in memory: the commands that the cluster uses, and its scripts, carried out one after the other.

It knows no time and no network: the clock is passed in, and what is published goes to a function. So it can stand
under a virtual clock as well as under the contract's suite, which is what makes it to be trusted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from tests.simulation.lua import Scripts
from tests.simulation.values import EntryId, Hash, SortedSet, Stream, Value, id_of, id_text

V = TypeVar("V")
Arguments = Sequence[bytes]

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

_scripts = Scripts()


class Data:
    """The keys with their values and ends, in ms since 1970."""

    def __init__(self) -> None:
        self.values: dict[bytes, Value] = {}
        self.ends: dict[bytes, int] = {}


class Server:
    """One server. `execute` carries out one command; errors are raised."""

    def __init__(self, now: Callable[[], float], publish: Callable[[bytes, bytes], int]) -> None:
        """Take the time of day in seconds, and what delivers what is published and says to how many."""
        self.data = Data()
        self._now = now
        self._publish = publish
        self._known: dict[bytes, bytes] = {}
        self.on_set: Callable[[bytes, bytes], None] = _nothing

    def now_ms(self) -> int:
        return int(self._now() * 1_000)

    def execute(self, arguments: Arguments) -> Any:
        """Carry out a command. Raises ResponseError."""
        command: Callable[[Server, Arguments], Any] | None = _COMMANDS.get(arguments[0].upper())
        if command is None:
            raise ResponseError(f"unknown command {arguments[0]!r}")
        return command(self, arguments[1:])

    def snapshot(self) -> Data:
        """A copy of all there is, for a replica that stays behind."""
        return copy.deepcopy(self.data)

    def become(self, data: Data) -> None:
        """Go on with other data, such as a replica's, in a process that knows no scripts."""
        self.data = data
        self._known.clear()

    # --- keys ---

    def value(self, key: bytes) -> Value | None:
        """The value of a key that has not expired."""
        end = self.data.ends.get(key)
        if end is not None and end <= self.now_ms():
            self.remove(key)
        return self.data.values.get(key)

    def remove(self, key: bytes) -> bool:
        self.data.ends.pop(key, None)
        return self.data.values.pop(key, None) is not None

    def typed(self, key: bytes, kind: type[V]) -> V | None:
        value = self.value(key)
        if value is not None and not isinstance(value, kind):
            raise ResponseError(WRONG_TYPE)
        return value

    def made(self, key: bytes, kind: type[V]) -> V:
        value = self.typed(key, kind)
        if value is None:
            value = kind()
            self.data.values[key] = value  # type: ignore[assignment]
        return value

    def expire(self, key: bytes, ms: int) -> int:
        if self.value(key) is None:
            return 0
        self.data.ends[key] = self.now_ms() + ms
        return 1

    def ttl(self, key: bytes) -> int:
        if self.value(key) is None:
            return -2
        end = self.data.ends.get(key)
        return -1 if end is None else end - self.now_ms()

    def published(self, channel: bytes, data: bytes) -> int:
        return self._publish(channel, data)

    # --- scripts ---

    def evaluate(self, text: bytes, arguments: Arguments) -> Any:
        self._known[sha1(text, usedforsecurity=False).hexdigest().encode()] = text
        count = int(arguments[0])
        return _scripts.run(text, arguments[1 : 1 + count], arguments[1 + count :], self.execute)

    def evaluate_known(self, digest: bytes, arguments: Arguments) -> Any:
        text = self._known.get(digest)
        if text is None:
            raise NoScriptError("No matching script.")
        return self.evaluate(text, arguments)

    def forget_scripts(self) -> None:
        self._known.clear()


def _nothing(key: bytes, value: bytes) -> None:
    pass


# --- strings ---


def _get(server: Server, a: Arguments) -> bytes | None:
    return server.typed(a[0], bytes)


def _mget(server: Server, a: Arguments) -> list[bytes | None]:
    values = (server.value(key) for key in a)
    return [value if isinstance(value, bytes) else None for value in values]


def _set(server: Server, a: Arguments) -> bytes | None:
    key, value = a[0], a[1]
    options = [option.upper() for option in a[2:]]
    if b"NX" in options and server.value(key) is not None:
        return None
    if b"KEEPTTL" not in options:
        server.data.ends.pop(key, None)
    server.data.values[key] = value
    if b"PX" in options:
        server.expire(key, int(a[2 + options.index(b"PX") + 1]))
    server.on_set(key, value)
    return b"OK"


# --- keys ---


def _delete(server: Server, a: Arguments) -> int:
    return sum([server.value(key) is not None and server.remove(key) for key in a])


def _exists(server: Server, a: Arguments) -> int:
    return sum(server.value(key) is not None for key in a)


def _keys(server: Server, a: Arguments) -> list[bytes]:
    return [key for key in list(server.data.values) if server.value(key) is not None]


def _type(server: Server, a: Arguments) -> bytes:
    match server.value(a[0]):
        case None:
            return b"none"
        case bytes():
            return b"string"
        case set():
            return b"set"
        case Stream():
            return b"stream"
        case found:
            return b"zset" if isinstance(found, SortedSet) else b"hash"


def _pttl(server: Server, a: Arguments) -> int:
    return server.ttl(a[0])


def _ttl(server: Server, a: Arguments) -> int:
    ms = server.ttl(a[0])
    return ms if ms < 0 else ms // 1_000


def _flushall(server: Server, a: Arguments) -> bytes:
    server.data = Data()
    return b"OK"


# --- sets ---


def _sadd(server: Server, a: Arguments) -> int:
    members = server.made(a[0], set)
    before = len(members)
    members.update(a[1:])
    return len(members) - before


def _srem(server: Server, a: Arguments) -> int:
    members = server.typed(a[0], set)
    if members is None:
        return 0
    before = len(members)
    members.difference_update(a[1:])
    if not members:
        server.remove(a[0])
    return before - len(members)


def _smembers(server: Server, a: Arguments) -> set[bytes]:
    return set(server.typed(a[0], set) or ())


def _sscan(server: Server, a: Arguments) -> tuple[int, list[bytes]]:
    return 0, sorted(server.typed(a[0], set) or ())


# --- sorted sets and hashes ---


def _zadd(server: Server, a: Arguments) -> int:
    members = server.made(a[0], SortedSet)
    added = a[2] not in members
    members[a[2]] = float(a[1])
    return int(added)


def _zrem(server: Server, a: Arguments) -> int:
    members = server.typed(a[0], SortedSet)
    if members is None:
        return 0
    removed = sum(members.pop(member, None) is not None for member in a[1:])
    if not members:
        server.remove(a[0])
    return removed


def _zrange(server: Server, a: Arguments) -> list[Any]:
    members = server.typed(a[0], SortedSet) or SortedSet()
    found = members.between(float("-inf"), float("inf"))
    return [(name, members[name]) for name in found] if b"WITHSCORES" in a else found


def _zrangebyscore(server: Server, a: Arguments) -> list[bytes]:
    members = server.typed(a[0], SortedSet) or SortedSet()
    found = members.between(float(a[1]), float(a[2]))
    return found[int(a[4]) : int(a[4]) + int(a[5])] if len(a) > 3 else found


def _zscore(server: Server, a: Arguments) -> float | None:
    return (server.typed(a[0], SortedSet) or SortedSet()).get(a[1])


def _hset(server: Server, a: Arguments) -> int:
    fields = server.made(a[0], Hash)
    added = a[1] not in fields
    fields[a[1]] = a[2]
    return int(added)


def _hdel(server: Server, a: Arguments) -> int:
    fields = server.typed(a[0], Hash)
    if fields is None:
        return 0
    removed = sum(fields.pop(name, None) is not None for name in a[1:])
    if not fields:
        server.remove(a[0])
    return removed


def _hgetall(server: Server, a: Arguments) -> list[bytes]:
    return [part for pair in (server.typed(a[0], Hash) or Hash()).items() for part in pair]


# --- streams ---


def _xadd(server: Server, a: Arguments) -> bytes:
    stream = server.typed(a[0], Stream) or Stream()
    at, keep = 1, None
    if a[at].upper() == b"MAXLEN":
        at += 2 if a[at + 1] in (b"~", b"=") else 1
        keep = int(a[at])
        at += 1
    entry_id = _next_id(server, stream) if a[at] == b"*" else id_of(a[at])
    if entry_id <= stream.last_id:
        raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
    rest = a[at + 1 :]
    stream.entries.append((entry_id, dict(zip(rest[::2], rest[1::2], strict=True))))
    stream.last_id = entry_id
    if keep is not None:
        del stream.entries[:-keep]
    server.data.values[a[0]] = stream
    return id_text(entry_id)


def _next_id(server: Server, stream: Stream) -> EntryId:
    ms, count = stream.last_id
    now = server.now_ms()
    return (now, 0) if now > ms else (ms, count + 1)


def _xrange(server: Server, a: Arguments) -> list[Any]:
    stream = server.typed(a[0], Stream)
    if stream is None:
        return []
    low = (0, 0) if a[1] == b"-" else id_of(a[1].removeprefix(b"("))
    beyond = a[1].startswith(b"(")
    return [
        [id_text(entry_id), [item for pair in fields.items() for item in pair]]
        for entry_id, fields in stream.entries
        if (entry_id > low if beyond else entry_id >= low)
    ]


# --- sizes, time and the rest ---


def _size_of(kind: type[Any]) -> Callable[[Server, Arguments], int]:
    def size(server: Server, a: Arguments) -> int:
        value = server.typed(a[0], kind)
        return len(value.entries if isinstance(value, Stream) else value or ())

    return size


def _time(server: Server, a: Arguments) -> list[bytes]:
    ms = server.now_ms()
    return [b"%d" % (ms // 1_000), b"%d" % (ms % 1_000 * 1_000)]


def _script(server: Server, a: Arguments) -> bytes:
    server.forget_scripts()
    return b"OK"


_COMMANDS: dict[bytes, Callable[[Server, Arguments], Any]] = {
    b"GET": _get,
    b"MGET": _mget,
    b"SET": _set,
    b"DEL": _delete,
    b"EXISTS": _exists,
    b"KEYS": _keys,
    b"TYPE": _type,
    b"EXPIRE": lambda server, a: server.expire(a[0], int(a[1]) * 1_000),
    b"PEXPIRE": lambda server, a: server.expire(a[0], int(a[1])),
    b"TTL": _ttl,
    b"PTTL": _pttl,
    b"FLUSHALL": _flushall,
    b"SADD": _sadd,
    b"SREM": _srem,
    b"SCARD": _size_of(set),
    b"SMEMBERS": _smembers,
    b"SISMEMBER": lambda server, a: int(a[1] in (server.typed(a[0], set) or ())),
    b"SSCAN": _sscan,
    b"ZADD": _zadd,
    b"ZREM": _zrem,
    b"ZCARD": _size_of(SortedSet),
    b"ZRANGE": _zrange,
    b"ZRANGEBYSCORE": _zrangebyscore,
    b"ZSCORE": _zscore,
    b"HSET": _hset,
    b"HDEL": _hdel,
    b"HGETALL": _hgetall,
    b"XADD": _xadd,
    b"XLEN": _size_of(Stream),
    b"XRANGE": _xrange,
    b"TIME": _time,
    b"SCRIPT": _script,
    b"PUBLISH": lambda server, a: server.published(a[0], a[1]),
    b"EVAL": lambda server, a: server.evaluate(a[0], a[1:]),
    b"EVALSHA": lambda server, a: server.evaluate_known(a[0], a[1:]),
}

"""What the cluster uses of a Redis client, over a link that decides what becomes of commands and messages.

It speaks as redis-py does: the same methods, the same answers, the same errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from redis.exceptions import ConnectionError, RedisError

from keepline.ops.redis.client import Client

Command = list[bytes]


class Inbox:
    """One connection that listens to channels. The link puts in what comes."""

    def __init__(self) -> None:
        self.is_connected = True
        self.channels: set[bytes] = set()
        self._waiting: list[list[Any]] = []
        self._reader: asyncio.Future[None] | None = None

    def put(self, answer: list[Any]) -> None:
        """Something has come."""
        self._waiting.append(answer)
        self._wake()

    def lose(self) -> None:
        """The connection is gone, and with it what has not been read."""
        self.is_connected = False
        self._waiting.clear()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read_response(
        self, timeout: float | None = None, *, disconnect_on_error: bool = True, push_request: bool = False
    ) -> list[Any] | None:
        """What comes next; None after `timeout` seconds without. Raises ConnectionError."""
        if self.is_connected and not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._reader
            except TimeoutError:
                return None
            finally:
                self._reader = None
        if not self.is_connected:
            raise ConnectionError("Connection closed by server.")
        return self._waiting.pop(0)


class Link(Protocol):
    """The way to a server."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Answers to commands, errors of the server among them. Raises RedisError."""

    async def publish_in_order(self, commands: Sequence[Command]) -> None:
        """Carry out PUBLISHes on a connection that is kept. Raises RedisError."""

    async def subscribe(self, inbox: Inbox, channel: bytes) -> None:
        """Let an inbox hear a channel. Raises RedisError."""

    def unsubscribe(self, inbox: Inbox) -> None:
        """The inbox is closed."""


Reader = Callable[[Any], Any]


class _Commands:
    """Commands as methods; `_send` says what becomes of one."""

    def _send(self, command: Sequence[Any], read: Reader | None = None) -> Any:
        raise NotImplementedError

    def get(self, key: Any) -> Any:
        return self._send(["GET", key])

    def mget(self, keys: Sequence[Any]) -> Any:
        return self._send(["MGET", *keys])

    def set(self, key: Any, value: Any, *, px: int | None = None, nx: bool = False) -> Any:
        options = [*(("PX", px) if px is not None else ()), *(("NX",) if nx else ())]
        return self._send(["SET", key, value, *options], lambda answer: True if answer else None)

    def delete(self, *keys: Any) -> Any:
        return self._send(["DEL", *keys])

    def exists(self, *keys: Any) -> Any:
        return self._send(["EXISTS", *keys])

    def keys(self) -> Any:
        return self._send(["KEYS", "*"])

    def type(self, key: Any) -> Any:
        return self._send(["TYPE", key])

    def expire(self, key: Any, seconds: int) -> Any:
        return self._send(["EXPIRE", key, seconds], bool)

    def pexpire(self, key: Any, ms: int) -> Any:
        return self._send(["PEXPIRE", key, ms], bool)

    def ttl(self, key: Any) -> Any:
        return self._send(["TTL", key])

    def pttl(self, key: Any) -> Any:
        return self._send(["PTTL", key])

    def flushall(self) -> Any:
        return self._send(["FLUSHALL"], bool)

    def script_flush(self) -> Any:
        return self._send(["SCRIPT", "FLUSH"], bool)

    def sadd(self, key: Any, *members: Any) -> Any:
        return self._send(["SADD", key, *members])

    def srem(self, key: Any, *members: Any) -> Any:
        return self._send(["SREM", key, *members])

    def smembers(self, key: Any) -> Any:
        return self._send(["SMEMBERS", key])

    def sismember(self, key: Any, member: Any) -> Any:
        return self._send(["SISMEMBER", key, member])

    def sscan(self, key: Any, *, count: int) -> Any:
        return self._send(["SSCAN", key, 0, "COUNT", count])

    def zadd(self, key: Any, scores: Mapping[Any, float]) -> Any:
        ((member, score),) = scores.items()
        return self._send(["ZADD", key, score, member])

    def zrem(self, key: Any, *members: Any) -> Any:
        return self._send(["ZREM", key, *members])

    def zrange(self, key: Any, start: int, end: int, *, withscores: bool = False) -> Any:
        return self._send(["ZRANGE", key, start, end, *(["WITHSCORES"] if withscores else [])])

    def zscore(self, key: Any, member: Any) -> Any:
        return self._send(["ZSCORE", key, member])

    def hset(self, key: Any, field: Any, value: Any) -> Any:
        return self._send(["HSET", key, field, value])

    def hdel(self, key: Any, field: Any) -> Any:
        return self._send(["HDEL", key, field])

    def hgetall(self, key: Any) -> Any:
        return self._send(["HGETALL", key], lambda flat: dict(zip(flat[::2], flat[1::2], strict=True)))

    def xadd(
        self,
        key: Any,
        fields: Mapping[Any, Any],
        id: str = "*",
        maxlen: int = 1_000_000,
        approximate: bool = True,
    ) -> Any:
        items = [item for pair in fields.items() for item in pair]
        return self._send(["XADD", key, "MAXLEN", "~" if approximate else "=", maxlen, id, *items])

    def xlen(self, key: Any) -> Any:
        return self._send(["XLEN", key])

    def xrange(self, key: Any, min: Any = "-", max: Any = "+") -> Any:
        return self._send(["XRANGE", key, min, max], _entries)

    def time(self) -> Any:
        return self._send(["TIME"], lambda answer: (int(answer[0]), int(answer[1])))

    def publish(self, channel: Any, data: Any) -> Any:
        return self._send(["PUBLISH", channel, data])

    def evalsha(self, digest: str, count: int, *rest: Any) -> Any:
        return self._send(["EVALSHA", digest, count, *rest])

    def eval(self, text: str, count: int, *rest: Any) -> Any:
        return self._send(["EVAL", text, count, *rest])


def _entries(answer: Any) -> Any:
    return [(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in answer]


def _packed(command: Sequence[Any]) -> Command:
    return [part if isinstance(part, bytes) else str(part).encode() for part in command]


class SimulatedClient(_Commands):
    """A client over a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def _send(self, command: Sequence[Any], read: Reader | None = None) -> Awaitable[Any]:
        return self._ask(_packed(command), read)

    async def _ask(self, command: Command, read: Reader | None) -> Any:
        (answer,) = await self._link.exchange([command])
        if isinstance(answer, Exception):
            raise answer
        return answer if read is None else read(answer)

    def pipeline(self, *, transaction: bool) -> _Pipeline:
        return _Pipeline(self._link)

    def pubsub(self, push_handler_func: Any = None) -> _PubSub:
        return _PubSub(self._link)

    @property
    def connection_pool(self) -> SimulatedClient:
        return self

    def make_connection(self) -> _PublishingConnection:
        return _PublishingConnection(self._link)

    async def aclose(self) -> None:
        pass


class _Pipeline(_Commands):
    def __init__(self, link: Link) -> None:
        self._link = link
        self._commands: list[tuple[Command, Reader | None]] = []

    async def __aenter__(self) -> _Pipeline:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._commands.clear()

    def _send(self, command: Sequence[Any], read: Reader | None = None) -> _Pipeline:
        self._commands.append((_packed(command), read))
        return self

    def execute_command(self, *command: Any) -> _Pipeline:
        return self._send(command, _entries if command[0] == "XRANGE" else None)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self._commands = self._commands, []
        if not commands:
            return []
        answers = await self._link.exchange([command for command, _ in commands])
        failed = next((answer for answer in answers if isinstance(answer, RedisError)), None)
        if failed is not None and raise_on_error:
            raise failed
        return [
            answer if read is None or isinstance(answer, Exception) else read(answer)
            for answer, (_, read) in zip(answers, commands, strict=True)
        ]


class _PubSub:
    def __init__(self, link: Link) -> None:
        self._link = link
        self.connection: Inbox | None = None

    async def __aenter__(self) -> _PubSub:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.connection is not None:
            self._link.unsubscribe(self.connection)
            self.connection.is_connected = False

    async def subscribe(self, channel: str) -> None:
        inbox = Inbox()
        await self._link.subscribe(inbox, channel.encode())
        self.connection = inbox

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Everything that comes, in the library's own wrapping."""
        assert self.connection is not None
        while True:
            answer = await self.connection.read_response()
            assert answer is not None
            yield {"type": answer[0].decode(), "channel": answer[1], "data": answer[2]}


class _PublishingConnection:
    """What the node's publisher uses of a connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.socket_timeout: float | None = None

    async def connect(self) -> None:
        pass

    def pack_commands(self, commands: Sequence[Sequence[Any]]) -> list[Command]:
        return [_packed(command) for command in commands]

    is_lost = False

    async def send_packed_command(self, commands: Sequence[Command], *, check_health: bool) -> None:
        await self._link.publish_in_order(commands)

    async def read_response(self) -> None:
        pass

    async def disconnect(self, *, nowait: bool) -> None:
        pass


def as_client(link: Link) -> Client:
    """A client in the eyes of the cluster."""
    return cast(Client, SimulatedClient(link))

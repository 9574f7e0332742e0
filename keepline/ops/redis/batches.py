"""Combines single commands of many callers into few writes.

There is no timer: a command leaves at the end of the event loop tick or, while a write to its server is in progress, as
soon as that is answered. So a single caller needs one round trip, and a thousand concurrent ones need a few. Each
server has its own lane, so that a slow server of a Redis Cluster delays no other. A command whose caller gives up
before it leaves is not sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from redis.exceptions import ConnectionError

from keepline.ops.redis.client import Client
from keepline.ops.redis.cluster import Cluster
from keepline.ops.redis.urls import Address

MAX_BATCH = 512
"""Maximum number of commands in one write."""

MAX_WAITING = 10_000
"""Maximum number of commands that wait for one server."""

Argument = bytes | str | int
_Asked = tuple[tuple[Argument, ...], asyncio.Future[Any]]


class Batches:
    """Sends single commands of one client. `aclose` cancels those in progress."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lanes: dict[Address | None, deque[_Asked]] = {}
        self._senders: set[asyncio.Task[None]] = set()

    def ask(self, *command: Argument) -> asyncio.Future[Any]:
        """The answer of Redis to a command on keys of one slot. Awaiting it raises RedisError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        # A failover changes a command's lane, so empty lanes are not kept.
        server = self._client.server_of(command) if isinstance(self._client, Cluster) else None
        lane = self._lanes.get(server)
        if lane is None:
            lane = self._lanes[server] = deque()
            sender = loop.create_task(self._send_all(server, lane))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        if len(lane) >= MAX_WAITING:
            answer.set_exception(
                ConnectionError(f"{MAX_WAITING} commands are already waiting for this server")
            )
        else:
            lane.append((command, answer))
        return answer

    async def aclose(self) -> None:
        """Send no more commands; those without an answer fail."""
        senders, lanes = list(self._senders), list(self._lanes.values())
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for lane in lanes:
            _tell_end(lane)

    async def _send_all(self, server: Address | None, lane: deque[_Asked]) -> None:
        try:
            while lane:
                batch = [lane.popleft() for _ in range(min(MAX_BATCH, len(lane)))]
                if wanted := [asked for asked in batch if not asked[1].done()]:
                    _tell(wanted, await self._send(wanted))
        finally:
            del self._lanes[server]

    async def _send(self, batch: Sequence[_Asked]) -> Sequence[Any]:
        """The answers of Redis. Any error is the answer to all."""
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for command, _ in batch:
                    pipe.execute_command(*command)
                return await pipe.execute(raise_on_error=False)
        except asyncio.CancelledError:
            _tell_end(batch)
            raise
        except Exception as error:
            return [error] * len(batch)


def _tell_end(asked: Collection[_Asked]) -> None:
    _tell(asked, [ConnectionError("the program is ending")] * len(asked))


def _tell(batch: Iterable[_Asked], answers: Sequence[Any]) -> None:
    for (_, waiting), answer in zip(batch, answers, strict=True):
        if waiting.done():
            continue  # cancelled
        if isinstance(answer, Exception):
            waiting.set_exception(answer)
            waiting.exception()  # the caller may never look: it may have failed for another reason meanwhile
        else:
            waiting.set_result(answer)

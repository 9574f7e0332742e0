"""The Redis of the simulation behind a network: everything takes time, and may fail in the ways that networks do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from redis.exceptions import ConnectionError, RedisError, TimeoutError

from keepline.ops.redis.client import ANSWER_SECONDS
from tests.simulation.loop import WORLD, SimulationLoop
from tests.simulation.redis_client import Command, Inbox
from tests.simulation.server import Data, Server

T = TypeVar("T")
Work = Callable[[Server], T]

WALL_AT_START = 1_800_000_000.0
"""Seconds since 1970 when the virtual clock is at 0."""

SPLIT_SHARE = 0.1
"""The share of pipelines whose commands are not carried out at one moment."""


@dataclass(slots=True)
class Conditions:
    """What the network and the server are like just now. Delays are seconds one way."""

    refusing: bool = False
    stalled: bool = False
    lost_requests: float = 0.0
    lost_answers: float = 0.0
    delay: tuple[float, float] = (0.0002, 0.002)


@dataclass(slots=True, eq=False)
class _Listening:
    inbox: Inbox
    channel: bytes
    link: RedisLink
    deaf: bool = False
    busy_until: float = 0.0


@dataclass(slots=True, eq=False)
class RedisLink:
    """A program's connections to Redis. `cut`: packets of this program alone get lost; `lost_answers`: some answers do.

    `troubled_at` is when it last went without an answer.
    """

    redis: Redis
    name: str
    cut: bool = False
    lost_answers: float = 0.0
    under_way: dict[asyncio.Future[Any], None] = field(default_factory=dict)
    publishing_until: float = 0.0
    troubled_at: float = -math.inf

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self.perform(lambda server: [_answer(server, command) for command in commands], commands)

    async def perform(self, work: Work[T], commands: Sequence[Command] = ()) -> T:
        """Have something done at the server at one moment, and wait for the answer. Raises RedisError."""
        return await self.redis.ask(self, work, commands)

    async def publish_in_order(self, commands: Sequence[Command]) -> None:
        await self.exchange(commands)

    async def subscribe(self, inbox: Inbox, channel: bytes) -> None:
        await self.perform(lambda _: self.redis.listen(_Listening(inbox, channel, self)))

    def unsubscribe(self, inbox: Inbox) -> None:
        self.redis.forget(inbox)


class Redis:
    """The server, and the network around it."""

    def __init__(self, loop: SimulationLoop, random: Random) -> None:
        self.conditions = Conditions()
        self.clock_off = 0.0
        self.server = Server(lambda: WALL_AT_START + loop.time() + self.clock_off, self._publish)
        self._loop = loop
        self._random = random
        self._context: Context = WORLD.context()
        self._links: list[RedisLink] = []
        self._listening: list[_Listening] = []
        self._stalled: list[Callable[[], None]] = []

    def link(self, name: str) -> RedisLink:
        """The connections of one program."""
        link = RedisLink(self, name)
        self._links.append(link)
        return link

    def drop_link(self, link: RedisLink) -> None:
        """The program is gone."""
        self.drop_connections(link)
        self._links.remove(link)

    # --- requests ---

    async def ask(self, link: RedisLink, work: Work[T], commands: Sequence[Command]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        link.under_way[future] = None
        self._after(self._delay(), lambda: self._arrive(link, work, commands, future))
        try:
            return await future
        except BaseException:
            link.troubled_at = self._loop.time()
            raise
        finally:
            link.under_way.pop(future, None)

    def _arrive(
        self, link: RedisLink, work: Work[T], commands: Sequence[Command], future: asyncio.Future[T]
    ) -> None:
        conditions = self.conditions
        if future.done() and self._random.random() < 0.5:
            return  # the connection broke before the server had read it
        if conditions.refusing:
            _fail(future, ConnectionError("connection refused"))
        elif link.cut:
            self._time_out(future)
        elif self._random.random() < conditions.lost_requests:
            _fail(future, ConnectionError("connection reset"))
        elif conditions.stalled:
            self._stalled.append(lambda: self._arrive(link, work, commands, future))
            self._time_out(future)
        elif len(commands) > 1 and self._random.random() < SPLIT_SHARE:
            self._in_two(link, commands, future)
        else:
            self._answer(link, work(self.server), future)

    def _in_two(self, link: RedisLink, commands: Sequence[Command], future: asyncio.Future[Any]) -> None:
        """A pipeline is no transaction: others come between, and the connection may break in the middle."""
        at = self._random.randrange(1, len(commands))
        answers = [_answer(self.server, command) for command in commands[:at]]

        def rest() -> None:
            if self.conditions.refusing or self.conditions.stalled or future.done():
                _fail(future, ConnectionError("connection reset"))
                return
            answers.extend(_answer(self.server, command) for command in commands[at:])
            self._answer(link, answers, future)

        self._after(self._delay(), rest)

    def _answer(self, link: RedisLink, answer: T, future: asyncio.Future[T]) -> None:
        if self._random.random() < max(self.conditions.lost_answers, link.lost_answers):
            _fail(future, ConnectionError("connection reset"))
        elif link.cut:
            self._time_out(future)
        else:
            self._after(self._delay(), lambda: None if future.done() else future.set_result(answer))

    def _time_out(self, future: asyncio.Future[Any]) -> None:
        self._after(ANSWER_SECONDS, lambda: _fail(future, TimeoutError("Timeout reading from socket")))

    def _delay(self) -> float:
        return self._random.uniform(*self.conditions.delay)

    def _after(self, seconds: float, work: Callable[[], object]) -> None:
        self._loop.call_later(seconds, work, context=self._context)

    # --- pub/sub ---

    def listen(self, listening: _Listening) -> None:
        self._listening.append(listening)
        self._deliver(listening, [b"subscribe", listening.channel, 1])

    def forget(self, inbox: Inbox) -> None:
        self._listening = [each for each in self._listening if each.inbox is not inbox]

    def _publish(self, channel: bytes, data: bytes) -> int:
        hearing = [each for each in self._listening if each.channel == channel]
        for each in hearing:
            if not each.deaf:
                self._deliver(each, [b"message", channel, data])
        return len(hearing)

    def _deliver(self, listening: _Listening, answer: list[Any]) -> None:
        """In order, on one connection. While the link is cut nothing gets through, and TCP keeps it for later."""
        listening.busy_until = max(self._loop.time() + self._delay(), listening.busy_until)

        def arrive() -> None:
            if not listening.inbox.is_connected:
                return
            if listening.link.cut or self.conditions.stalled:
                self._after(0.1, arrive)
            else:
                listening.inbox.put(answer)

        self._loop.call_at(listening.busy_until, arrive, context=self._context)

    # --- faults ---

    def drop_connections(self, link: RedisLink | None = None) -> None:
        """All connections break, or those of one program."""
        for each in [link] if link is not None else list(self._links):
            for future in list(each.under_way):
                _fail(future, ConnectionError("connection reset"))
            for listening in [one for one in self._listening if one.link is each]:
                self._listening.remove(listening)
                listening.inbox.lose()

    def deafen(self, link: RedisLink) -> None:
        """Subscriptions of a program hear nothing any more, and nobody notices."""
        for listening in self._listening:
            if listening.link is link:
                listening.deaf = True

    def stop(self) -> None:
        """The server is gone; connections are refused."""
        self.conditions.refusing = True
        self._stalled.clear()
        self.drop_connections()

    def start(self, data: Data) -> None:
        """The server is back, or another in its place, with this data."""
        self.server.become(data)
        self.conditions.refusing = False

    def resume(self) -> None:
        """The server goes on after a stall, with all that has come meanwhile."""
        self.conditions.stalled = False
        stalled, self._stalled = self._stalled, []
        for work in stalled:
            work()


def _fail(future: asyncio.Future[Any], error: RedisError) -> None:
    if not future.done():
        future.set_exception(error)


def _answer(server: Server, command: Command) -> Any:
    try:
        return server.execute(command)
    except RedisError as error:
        return error

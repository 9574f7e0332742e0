"""Test calls that record everything they send and receive, for the checker to compare with the guarantees.

The caller provides the rooms, and any faults. At the end all members wait for their answers, and the chat is read from
every place that has it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from keepline.cli.cluster.history import History
from keepline.client import (
    Call,
    CallEnded,
    ChatReceived,
    DeliveryCounts,
    Ended,
    EventsLost,
    Keepline,
    KeeplineError,
    Message,
    Options,
    PeerChanged,
    RequestFailed,
    SignalLost,
    SignalQueueFull,
    SignalReceived,
    State,
)

Lines = Sequence[Mapping[str, Any]]

_CERTAIN = (CallEnded, RequestFailed, SignalQueueFull)
"""Errors after which a message is certainly not stored, or a signal not sent."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The signals and chat messages that each member sends per second."""

    signals: float
    lines: float


@dataclass(slots=True)
class Writer:
    """One member of a room. Records everything that it sends and receives."""

    name: str
    room: str
    history: History
    random: random.Random
    call: Call | None = None
    under_way: set[asyncio.Future[None]] = field(default_factory=set)
    _last: int = field(default=0)

    def on_state(self, state: State) -> None:
        """Record when the connection is lost and when it is back."""
        if state in (State.RECONNECTING, State.CONNECTED) and self.call is not None:
            self._note("ok", "connection", "back" if state is State.CONNECTED else "lost")

    async def read(self) -> None:
        """Record the call's events until it is over."""
        assert self.call is not None
        async for event in self.call.events():
            match event:
                case SignalReceived(data=int(number)):
                    self._note("ok", "receive", number)
                case ChatReceived(message=message):
                    self._note("ok", "line", line_of(message))
                case PeerChanged(state="left"):
                    self._note("ok", "left")
                case Ended(reason=reason):
                    self._note("ok", "ended", reason)
                case EventsLost(count=count):
                    raise RuntimeError(f"{self.name} read too slowly: {count} events were dropped")
                case _:
                    pass

    async def signal(self, rate: float, stop: asyncio.Event) -> None:
        """Send 1, 2, 3 … at a rate per second, until told to stop."""
        assert self.call is not None
        while not await self._paused(1 / rate, stop):
            self._last = number = self._last + 1
            self._note("invoke", "signal", number)
            try:
                sent = asyncio.ensure_future(self.call.send(number))
            except KeeplineError as error:
                self._failed("signal", number, error)
                continue
            self.under_way.add(sent)
            sent.add_done_callback(partial(self._sent, number))

    def _sent(self, number: int, sent: asyncio.Future[None]) -> None:
        self.under_way.discard(sent)
        arrived = not sent.cancelled() and sent.exception() is None
        self._note("ok" if arrived else "info", "signal", number)

    async def write(self, rate: float, stop: asyncio.Event) -> None:
        """Write chat messages at a rate per second, until told to stop."""
        assert self.call is not None
        number = 0
        while not await self._paused(1 / rate, stop):
            number += 1
            text = f"{self.name} {number}"
            self._note("invoke", "chat", text)
            try:
                self._note("ok", "chat", line_of(await self.call.chat(text)))
            except KeeplineError as error:
                self._failed("chat", text, error)
                if isinstance(error, CallEnded):
                    return

    def _failed(self, operation: Any, value: Any, error: KeeplineError) -> None:
        certain = isinstance(error, _CERTAIN) and not isinstance(error, SignalLost)
        self._note("fail" if certain else "info", operation, value)

    def _note(self, kind: Any, operation: Any, value: Any = None) -> None:
        self.history.note(self.name, self.room, kind, operation, value)

    async def _paused(self, seconds: float, stop: asyncio.Event) -> bool:
        """Wait for a random time around the mean. Returns whether to stop."""
        try:
            async with asyncio.timeout(self.random.uniform(0.5, 1.5) * seconds):
                await stop.wait()
        except TimeoutError:
            return stop.is_set()
        return True


def line_of(message: Message) -> dict[str, Any]:
    """A chat message as recorded in the history."""
    return {"seq": message.seq, "text": message.text}


class Writers:
    """All members of all rooms in a run."""

    def __init__(self, history: History, rates: Rates, seed: int) -> None:
        self.history = history
        self._rates = rates
        self._seed = seed
        self._stop = asyncio.Event()
        self._writers: list[Writer] = []
        self._clients: list[Keepline] = []
        self._work: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []

    async def join(
        self, stack: AsyncExitStack, room: str, user: uuid.UUID, urls: Sequence[str], token: str
    ) -> None:
        """Let a member join its room. The stack closes it. Raises KeeplineError."""
        name = f"{room[:8]}/{len(self._writers) % 2 + 1}"
        writer = Writer(name, room, self.history, random.Random(f"{self._seed} {name}"))  # noqa: S311 - to repeat a run
        options = Options(events_waiting=100_000, uniform=writer.random.uniform)
        client = Keepline(urls, token, room_hint=room, on_state=writer.on_state, options=options)
        await stack.enter_async_context(client)
        writer.call = await client.join(room)
        self._writers.append(writer)
        self._clients.append(client)

    def begin(self) -> None:
        """Start sending and reading for all members."""
        for writer in self._writers:
            self._reading.append(asyncio.create_task(writer.read()))
            self._work.append(asyncio.create_task(writer.signal(self._rates.signals, self._stop)))
            self._work.append(asyncio.create_task(writer.write(self._rates.lines, self._stop)))

    async def settle(self, seconds: float) -> bool:
        """Stop sending, and wait for all answers. Returns whether they arrived within `seconds`."""
        self._stop.set()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._work)
                under_way = [sent for writer in self._writers for sent in writer.under_way]
                await asyncio.gather(*under_way, return_exceptions=True)
        except TimeoutError:
            return False
        return True

    async def read_chats(self, places: Mapping[str, Callable[[str], Awaitable[Lines]]]) -> None:
        """Record the chat of each room as seen from each place."""
        for room in dict.fromkeys(writer.room for writer in self._writers):
            for name, read in places.items():
                lines = [{"seq": line["seq"], "text": line["text"]} for line in await read(room)]
                self.history.note(name, room, "ok", "lines", lines)

    async def close(self) -> None:
        """Stop all tasks. Raises the error of a failed reader."""
        for task in (*self._work, *self._reading):
            if not task.done():
                task.cancel()
        results = await asyncio.gather(*self._work, *self._reading, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def counts(self) -> DeliveryCounts:
        """The total cost of reliable delivery in all calls."""
        total = DeliveryCounts()
        for writer in self._writers:
            assert writer.call is not None
            for each in fields(DeliveryCounts):
                value = getattr(total, each.name) + getattr(writer.call.delivery, each.name)
                setattr(total, each.name, value)
        return total

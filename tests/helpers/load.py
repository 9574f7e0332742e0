"""Calls under load: two members each, on the Python SDK, who chat and signal until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from keepline.client import (
    Call,
    CallEnded,
    ChatReceived,
    ConnectionLost,
    Ended,
    Keepline,
    Message,
    Options,
    RequestFailed,
    RequestTimedOut,
    SignalReceived,
    State,
)
from tests.helpers.checker import Ledger, Line
from tests.helpers.cluster import Deployment
from tests.helpers.waiting import eventually

MEETING_SECONDS = 30.0
STOP_SECONDS = 30.0
REQUEST_SECONDS = 5.0
PAUSE_SECONDS = 0.2, 1.0
"""Shortest and longest pause between two things that a member does."""


def line_of(message: Message) -> Line:
    """A message of the SDK as the protocol shows it."""
    return {"seq": message.seq, "from": message.sender, "text": message.text, "at": message.at}


@dataclass(slots=True)
class Member:
    """One end of a call. `unanswered` counts lines of which nobody knows whether they were stored."""

    name: str
    client: Keepline
    call: Call
    ledger: Ledger
    random: random.Random
    unanswered: int = 0
    refused: list[str] = field(default_factory=list)
    signals: list[asyncio.Future[None]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def read(self) -> None:
        """Note what the call tells, until it is over."""
        async for event in self.call.events():
            match event:
                case ChatReceived(message=message):
                    self.ledger.was_received(self.name, line_of(message))
                case SignalReceived(data=number):
                    self.ledger.signal_received(self.name, number)
                case Ended(reason=reason):
                    self.ends.append(reason)
                case _:
                    pass

    async def work(self, stop: asyncio.Event) -> None:
        """Chat and signal, with pauses, until `stop` is set or the call is over."""
        try:
            while not stop.is_set():
                number = len(self.signals) + 1
                self.signals.append(asyncio.ensure_future(self.call.send(number)))
                await self._chat(f"{self.name} {number}")
                await pause(self.random.uniform(*PAUSE_SECONDS), stop)
        except CallEnded:
            return

    @property
    def settled(self) -> bool:
        """Whether the call is over, or both members are there and know it."""
        if self.call.ended is not None:
            return True
        return self.client.state is State.CONNECTED and self.call.peer == "joined"

    async def _chat(self, text: str) -> None:
        self.ledger.will_send(text)
        try:
            self.ledger.was_acknowledged(self.name, line_of(await self.call.chat(text)))
        except (ConnectionLost, RequestTimedOut):
            self.unanswered += 1
        except RequestFailed as error:
            self.refused.append(error.code)


@dataclass(slots=True)
class LoadedCall:
    """A call with its two members and what is known of it."""

    room: str
    members: tuple[Member, Member]
    ledger: Ledger

    def all_signals_arrived(self) -> bool:
        """Whether each member has all of the other's signals, once and in order, and the other knows it."""
        for member, peer in (self.members, self.members[::-1]):
            assert self.ledger.signals.get(peer.name, []) == list(range(1, len(member.signals) + 1))
            assert all(signal.done() and signal.exception() is None for signal in member.signals)
        return True

    def view(self, member: Member) -> list[Line]:
        """The chat as a member has it."""
        return [line_of(message) for message in member.call.room.messages]


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """What paces a load: so long, or until it is to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


@asynccontextmanager
async def loaded_calls(
    deployment: Deployment, count: int, seed: int
) -> AsyncIterator[tuple[list[LoadedCall], asyncio.Event]]:
    """So many calls under load, which goes on until the event is set; its members stay until the context closes."""
    chance = random.Random(f"{seed} load")
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        calls = [await _open(deployment, stack, chance) for _ in range(count)]
        members = [member for call in calls for member in call.members]
        await eventually(
            lambda: all(member.call.peer == "joined" for member in members), timeout=MEETING_SECONDS
        )
        tasks = [asyncio.create_task(member.read()) for member in members]
        stack.push_async_callback(_finish, tasks)
        workers = [asyncio.create_task(member.work(stop)) for member in members]
        stack.push_async_callback(_finish, workers)
        yield calls, stop
        stop.set()
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.gather(*workers)


async def _open(deployment: Deployment, stack: AsyncExitStack, chance: random.Random) -> LoadedCall:
    users = (
        uuid.UUID(int=chance.getrandbits(128), version=4),
        uuid.UUID(int=chance.getrandbits(128), version=4),
    )
    room = (await deployment.open_room(*users))["room_id"]
    ledger = Ledger()
    members = []
    for user in users:
        urls = [node.ws for node in deployment.nodes]
        chance.shuffle(urls)
        own = random.Random(chance.getrandbits(64))
        options = Options(request_timeout=REQUEST_SECONDS, uniform=own.uniform)
        client = await stack.enter_async_context(Keepline(urls, deployment.token(user), options=options))
        members.append(Member(str(user), client, await client.join(room), ledger, own))
    return LoadedCall(room, (members[0], members[1]), ledger)


async def _finish(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

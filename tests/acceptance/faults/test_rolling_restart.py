"""Every node is stopped and started again, one after the other, under calls that go on: nobody is to notice.

ROLL_CALLS and ROLL_DRAIN_SECONDS make it larger; `make rolling-restart` is the full size.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keepline.client import Call, CallEnded, Ended, Keepline, PeerChanged, SignalReceived, State
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.haproxy import PROGRAM, haproxy
from tests.helpers.waiting import eventually

CALLS = int(os.environ.get("ROLL_CALLS", "40"))
DRAIN_SECONDS = float(os.environ.get("ROLL_DRAIN_SECONDS", "3"))
NODES = 2
PAUSE_SECONDS = 0.5
"""Pause between two signals of one member."""

OPENED_AT_ONCE = 10
SETTLED_SECONDS = 30.0
ENVIRON = {
    "KEEPLINE_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
    "KEEPLINE_DRAIN_LINGER_SECONDS": f"{min(5.0, DRAIN_SECONDS):g}",
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "10000",
}


@dataclass
class Member:
    """One end of a call: what it sent and got, and how long it was without a connection, each time."""

    call: Call | None = None
    peer: Member | None = None
    sent: int = 0
    received: set[int] = field(default_factory=set)
    outages: list[float] = field(default_factory=list)
    moves: int = 0
    lost_at: float | None = None
    noticed: list[str] = field(default_factory=list)

    def on_state(self, state: State) -> None:
        """Take the time that the client has no connection."""
        if state is State.RECONNECTING:
            self.lost_at = time.monotonic()
        elif state is State.CONNECTED and self.lost_at is not None:
            self.outages.append(time.monotonic() - self.lost_at)
            self.lost_at = None
        elif state is State.CLOSED:
            self.noticed.append("closed")

    async def read(self, call: Call) -> None:
        """Note what arrives, until the call is over."""
        async for event in call.events():
            match event:
                case SignalReceived(data=int(number)):
                    self.received.add(number)
                case PeerChanged(state="left" | "away" as state):
                    self.noticed.append(state)
                case PeerChanged(state="reconnected"):
                    self.moves += 1
                case Ended(reason=reason):
                    self.noticed.append(f"ended: {reason}")

    async def talk(self, call: Call, stop: asyncio.Event) -> None:
        """Send signals, with pauses, until told to stop."""
        try:
            for self.sent in itertools.count(1):
                call.send(self.sent)
                try:
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await stop.wait()
                    return
                except TimeoutError:
                    continue
        except CallEnded as ended:
            self.noticed.append(str(ended))


async def open_call(
    fleet: Fleet, balancer: str | None, stack: AsyncExitStack, number: int, turns: asyncio.Semaphore
) -> list[Member]:
    """A call whose ends are on one node, or on two, by turns; behind a balancer, where that wants them."""
    async with turns:
        users = uuid.uuid4(), uuid.uuid4()
        room = (await fleet.open_room(*users, node=number % NODES))["room_id"]
        members = []
        for end, user in enumerate(users):
            first = (number + end * (number // NODES)) % NODES
            urls = balancer or [fleet.nodes[(first + n) % NODES].ws for n in range(NODES)]
            member = Member()
            client = Keepline(urls, fleet.token(user), room_hint=room, on_state=member.on_state)
            await stack.enter_async_context(client)
            member.call = await client.join(room)
            members.append(member)
        members[0].peer, members[1].peer = members[1], members[0]
        return members


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; 0 for no values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


@pytest.mark.timeout(120 + 2 * CALLS)
@pytest.mark.parametrize(
    "balanced",
    [
        pytest.param(False, id="clients know the nodes"),
        pytest.param(
            True, id="behind HAProxy", marks=pytest.mark.skipif(PROGRAM is None, reason="no haproxy on PATH")
        ),
    ],
)
async def test_a_rolling_restart_drops_no_call(balanced: bool, tmp_path: Path) -> None:
    async with running_fleet(nodes=NODES, environ=ENVIRON) as fleet, AsyncExitStack() as stack:
        balancer = await stack.enter_async_context(haproxy(fleet.nodes, tmp_path)) if balanced else None
        turns = asyncio.Semaphore(OPENED_AT_ONCE)
        opened = await asyncio.gather(*(open_call(fleet, balancer, stack, n, turns) for n in range(CALLS)))
        members = [member for call in opened for member in call]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(m.read(m.call)) for m in members if m.call is not None]
            talkers = [group.create_task(m.talk(m.call, stop)) for m in members if m.call is not None]
            began = time.monotonic()
            for program in fleet.programs:
                await program.stop()
                await program.start()
                await program.until_ready()
            rolled = time.monotonic() - began
            stop.set()
            await asyncio.wait(talkers, timeout=SETTLED_SECONDS)
            await eventually(
                lambda: all(m.peer is not None and m.peer.sent == len(m.received) for m in members),
                timeout=SETTLED_SECONDS,
                what="all signals have arrived",
            )
            for reader in readers:
                reader.cancel()
        outages = [seconds for member in members for seconds in member.outages]
        sent = sum(member.sent for member in members)
        lost = sent - sum(len(member.received) for member in members)
        print(  # noqa: T201 - for `make rolling-restart`
            f"{CALLS} calls{' behind HAProxy' if balanced else ''}, {NODES} nodes restarted in {rolled:.1f} s: "
            f"{sum(member.moves for member in members)} moves, {len(outages)} times without a connection "
            f"(p50 {percentile(outages, 0.5) * 1000:.0f} ms, p99 {percentile(outages, 0.99) * 1000:.0f} ms, "
            f"max {max(outages, default=0.0) * 1000:.0f} ms), {lost} of {sent} signals lost"
        )
        assert lost == 0
        assert [member.noticed for member in members if member.noticed] == []
        assert sum(member.moves for member in members) >= CALLS
        for member in members:
            assert member.call is not None
            assert (member.call.ended, member.call.peer) == (None, "joined")
        await fleet.until_ready()

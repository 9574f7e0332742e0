"""An honest pair beside an attack: a call over two nodes whose signals are timed, and what the nodes take."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.harness import Call
from tests.helpers.cluster import Cluster

EVERY_SECONDS = 0.011
"""Each of the two may send 50 a second."""


@dataclass
class Times:
    """How long signals took, in ms."""

    took: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """The time that so many were not above."""
        return sorted(self.took)[min(len(self.took) - 1, int(len(self.took) * share))]

    def __str__(self) -> str:
        return f"p50 {self.percentile(0.5):.1f} ms, p99 {self.percentile(0.99):.1f} ms"


class Pair:
    """Alice and Bob signal in turn; every one has to arrive, in order, and nothing else."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._numbers = itertools.count(1)

    async def signal(self, times: Times) -> None:
        """One signal."""
        number, began = next(self._numbers), time.perf_counter()
        sender, receiver = self.call.clients[:: 1 if number % 2 else -1]
        await sender.send("signal", room=self.call.room, data={"app": number})
        await receiver.expect("signal", room=self.call.room, data={"app": number})
        times.took.append((time.perf_counter() - began) * 1_000)

    async def measure(self, count: int) -> Times:
        """So many signals, one after the other."""
        times = Times()
        for _ in range(count):
            await self.signal(times)
            await asyncio.sleep(EVERY_SECONDS)
        return times

    @asynccontextmanager
    async def measured(self, seconds: float) -> AsyncIterator[Times]:
        """Signal while the context is open, and for so many seconds at least."""
        times, over, until = Times(), asyncio.Event(), time.perf_counter() + seconds

        async def run() -> None:
            while not over.is_set() or time.perf_counter() < until:
                await self.signal(times)
                await asyncio.sleep(EVERY_SECONDS)

        task = asyncio.create_task(run())
        try:
            yield times
        finally:
            over.set()  # between two signals, or the pair would wait for one that it never sent
            await task


def resident_mb(cluster: Cluster) -> list[float]:
    """Memory of each node."""
    sizes = []
    for node in cluster.nodes:
        status = Path(f"/proc/{node.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        sizes.append(int(line.split()[1]) / 1_024)
    return sizes

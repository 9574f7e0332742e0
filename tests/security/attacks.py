"""One attack beside an honest call: who attacks, what the call notices, and what the nodes take for it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.harness import Call
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually
from tests.security.honest import Pair, Times, resident_mb

SECONDS = float(os.environ.get("ATTACK_SECONDS", "1"))
CONNECTIONS = [int(n) for n in os.environ.get("ATTACK_CONNECTIONS", "20").split(",")]
FACTOR = float(os.environ.get("ATTACK_FACTOR", "inf"))
"""By how much the call may be slower during an attack, and after it; a busy machine is no measure of that."""

SIGNALS = int(20 * SECONDS)
"""Before and after an attack."""

MEMORY_SHARE = 1.2
MEMORY_SECONDS = 10.0


@dataclass
class Attacked:
    """A cluster with a call on it, which attack after attack has to bear."""

    cluster: Cluster
    call: Call
    calm: Times = field(default_factory=Times)
    table: list[str] = field(default_factory=list)

    async def by(self, name: str, connections: int, **options: Any) -> dict[str, int]:
        """Attack; the call has to go on, and memory to come back. Returns what the attacker has seen."""
        pair, memory = Pair(self.call), resident_mb(self.cluster)
        async with self._attacker(name, connections, **options) as attacker:
            before = await pair.measure(SIGNALS)
            self.calm.took += before.took
            async with pair.measured(SECONDS) as during:
                output, _ = await asyncio.wait_for(attacker.communicate(b"\n"), SECONDS + 30)
        assert attacker.returncode == 0
        seen: dict[str, int] = json.loads(output)
        after = await pair.measure(SIGNALS)
        grown = max(now - then for then, now in zip(memory, resident_mb(self.cluster), strict=True))
        self._note(name, connections, before, during, after, grown)
        print(f"\n{name} x{connections}: {seen}")  # noqa: T201 - to see what met what
        await self._memory_comes_back(memory)
        assert await self.buried() == 0, "a node was taken for dead"
        for times in (during, after):
            assert times.percentile(0.99) <= FACTOR * self.calm.percentile(0.99), f"{times}, calm {self.calm}"
        return seen

    async def _memory_comes_back(self, memory: list[float]) -> None:
        await eventually(
            lambda: all(
                now < MEMORY_SHARE * then for then, now in zip(memory, resident_mb(self.cluster), strict=True)
            ),
            timeout=MEMORY_SECONDS,
            what=f"memory is back within a fifth of {memory} MB",
        )

    @asynccontextmanager
    async def _attacker(
        self, name: str, connections: int, **options: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """An attacker that waits for its word: to start a program would take time from the call."""
        options = {
            "ws": [node.ws for node in self.cluster.nodes],
            "http": [node.http for node in self.cluster.nodes],
            "connections": connections,
            "seconds": SECONDS,
            **options,
        }
        program = (sys.executable, "-m", "tests.security.attacker", name, json.dumps(options))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _note(
        self, name: str, connections: int, before: Times, during: Times, after: Times, grown: float
    ) -> None:
        ratio = during.percentile(0.99) / self.calm.percentile(0.99)
        self.table.append(
            f"| {name} | {connections} | {before} | {during} | {ratio:.1f} | {after} | {grown:+.0f} MB |"
        )

    async def buried(self) -> int:
        """How many nodes were taken for dead, as all nodes count."""
        return await self.metric("keepline_nodes_buried_total")

    async def metric(self, name: str, node: int | None = None) -> int:
        """A counter of a node, or of all."""
        nodes = self.cluster.nodes if node is None else [self.cluster.nodes[node]]
        total = 0.0
        for one in nodes:
            async with self.cluster.http.get(f"{one.http}/metrics") as response:
                lines = (await response.text()).splitlines()
            total += sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
        return round(total)

    def report(self) -> str:
        """The table of all attacks until now."""
        head = (
            "| attack | connections | before | during | p99 | after | memory |\n| --- " + "| --- " * 6 + "|"
        )
        return "\n".join(["", head, *self.table, f"before all of them together: {self.calm}"])

"""What happens to the crowd. Each scenario yields figures as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from tests.storm.figures import Figures, figures
from tests.storm.stage import Stage

AT_ONCE = 64
"""How many come at a time when nothing is wrong."""

CALM_SECONDS = 3.0
NOTICED_SECONDS = 10.0
SETTLED_SECONDS = 150.0
"""More than any client needs that may still be helped."""

Scenario = Callable[[Stage], AsyncIterator[Figures]]


async def enter(stage: Stage, *nodes: int) -> AsyncIterator[Figures]:
    """All come to these nodes, and then nothing happens for a while."""
    crowd = stage.crowd
    crowd.ports = [stage.port(node) for node in nodes]
    before = stage.usage()
    crowd.begin_wave()
    crowd.enter(AT_ONCE)
    await crowd.settled(SETTLED_SECONDS)
    yield figures("everybody comes", stage, before)
    before = stage.usage()
    crowd.begin_wave()
    await asyncio.sleep(CALM_SECONDS)
    yield figures("nothing happens", stage, before)


async def node_death(stage: Stage) -> AsyncIterator[Figures]:
    """Everybody is on the first node, which is killed: all come to the others with what they have to resume."""
    async for found in enter(stage, 0):
        yield found
    crowd = stage.crowd
    crowd.ports = [stage.port(node) for node in range(1, len(stage.fleet.nodes))]
    before = stage.usage()
    crowd.begin_wave()
    await stage.fleet.programs[0].kill()
    await crowd.all_lost(NOTICED_SECONDS)
    await crowd.settled(SETTLED_SECONDS)
    yield figures("the node is killed", stage, before)


SCENARIOS: dict[str, Scenario] = {"node-death": node_death}

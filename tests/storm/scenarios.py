"""What happens to the crowd. In each scenario the cluster has to get out by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.storm.figures import Figures, figures
from tests.storm.stage import Stage

AT_ONCE = 64
"""How many come at a time when nothing is wrong."""

CALM_SECONDS = 3.0
NOTICED_SECONDS = 10.0
OUTAGE_SECONDS = 5.0
STORED_SECONDS = 60.0
SETTLED_SECONDS = 150.0
"""More than any client needs that may still be helped."""


@dataclass(frozen=True)
class Scenario:
    """`play` begins when all are inside, at the nodes `at` (all of them by default); or outside, if `from_nothing`."""

    play: Callable[[Stage], Awaitable[None]]
    title: str
    at: tuple[int, ...] | None = None
    from_nothing: bool = False
    environ: dict[str, str] = field(default_factory=dict)


async def enter(stage: Stage, scenario: Scenario) -> Figures:
    """All come, a few at a time."""
    everywhere = tuple(range(len(stage.fleet.nodes)))
    stage.open_to(*(everywhere if scenario.at is None else scenario.at))
    before = stage.begin_wave()
    stage.crowd.enter(AT_ONCE)
    await stage.crowd.settled(SETTLED_SECONDS)
    return figures("everybody comes", stage, before)


async def stay(stage: Stage) -> Figures:
    """Nothing happens for a while."""
    before = stage.begin_wave()
    await asyncio.sleep(CALM_SECONDS)
    return figures("nothing happens", stage, before)


async def strike(stage: Stage, scenario: Scenario) -> Figures:
    """What the scenario is about, until nobody is outside any more."""
    before = stage.begin_wave()
    await scenario.play(stage)
    await stage.crowd.settled(SETTLED_SECONDS)
    return figures(scenario.title, stage, before)


async def _node_death(stage: Stage) -> None:
    stage.open_to(*range(1, len(stage.fleet.nodes)))
    await stage.fleet.programs[0].kill()
    await stage.crowd.all_lost(NOTICED_SECONDS)


async def _balancer_restart(stage: Stage) -> None:
    stage.crowd.cut()
    await stage.crowd.all_lost(NOTICED_SECONDS)


async def _rolling_restart(stage: Stage) -> None:
    everywhere = range(len(stage.fleet.nodes))
    for node, program in enumerate(stage.fleet.programs):
        stage.open_to(*(other for other in everywhere if other != node))
        await program.stop()
        await program.start()
        await program.until_ready()
    stage.open_to(*everywhere)


async def _redis_outage(stage: Stage) -> None:
    await stage.fleet.valkey.stop()
    stage.crowd.cut()
    await stage.crowd.all_lost(NOTICED_SECONDS)
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.fleet.valkey.start()


async def _cold_start(stage: Stage) -> None:
    await stage.all_stored(STORED_SECONDS)
    stage.open_to()
    for program in stage.fleet.programs:
        await program.kill()
    await stage.fleet.empty_redis()
    await stage.crowd.all_lost(NOTICED_SECONDS)
    nodes = range(len(stage.fleet.nodes))
    await stage.fleet.start(*nodes)
    stage.open_to(*nodes)


async def _from_nothing(stage: Stage) -> None:
    stage.crowd.storm_in()


SCENARIOS = {
    "node-death": Scenario(_node_death, "the node of all is killed", at=(0,)),
    "balancer-restart": Scenario(_balancer_restart, "all connections break at once"),
    "rolling-restart": Scenario(
        _rolling_restart,
        "one node after the other is restarted",
        environ={"KEEPLINE_DRAIN_SECONDS": "5", "KEEPLINE_DRAIN_LINGER_SECONDS": "1"},
    ),
    "redis-outage": Scenario(_redis_outage, "Redis is away, and all connections break"),
    "cold-start": Scenario(_cold_start, "everything but Postgres is killed"),
    "from-nothing": Scenario(_from_nothing, "all come at once", from_nothing=True),
}

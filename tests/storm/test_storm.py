"""Crowds in small; `make storm` plays them in the size that they are about."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.storm.figures import Figures
from tests.storm.scenarios import SCENARIOS
from tests.storm.stage import Size, stage

CLIENTS = 200


async def played(scenario: str, **environ: str) -> Sequence[Figures]:
    seed = random.randrange(2**32)
    print(f"python -m tests.storm --scenario {scenario} --clients {CLIENTS} --seed {seed}")  # noqa: T201 - to repeat it
    found = []
    async with stage(Size(CLIENTS, seed=seed), **environ) as ready:
        async for figures in SCENARIOS[scenario](ready):
            print(figures)  # noqa: T201 - what happened, for whoever sees it fail
            found.append(figures)
    return found


@pytest.mark.timeout(240)
async def test_a_node_dies_and_no_call_ends() -> None:
    entered, _, back = await played("node-death")
    assert (entered.inside, entered.outside, entered.ended) == (CLIENTS, 0, {})
    assert (back.inside, back.outside, back.ended) == (CLIENTS, 0, {})
    assert len(back.wave.waits) == CLIENTS
    assert back.pair.signals > 0

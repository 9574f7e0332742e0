"""Crowds in small; `make storm` plays them in the size that they are about."""

from __future__ import annotations

import random

import pytest

from tests.storm.scenarios import SCENARIOS, enter, strike
from tests.storm.stage import Size, stage

CLIENTS = 100


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_everybody_comes_in_and_no_call_ends(name: str) -> None:
    scenario, seed = SCENARIOS[name], random.randrange(2**32)
    print(f"python -m tests.storm --scenario {name} --clients {CLIENTS} --seed {seed}")  # noqa: T201 - to repeat it
    async with stage(Size(CLIENTS, seed=seed), **scenario.environ) as ready:
        if not scenario.from_nothing:
            entered = await enter(ready, scenario)
            assert (entered.inside, entered.outside, entered.ended) == (CLIENTS, 0, {}), entered
        struck = await strike(ready, scenario)
        assert (struck.inside, struck.outside, struck.ended) == (CLIENTS, 0, {}), struck
        assert len(struck.wave.waits) >= CLIENTS or name == "rolling-restart", struck

"""Hundreds of seeds of the simulation, the same ones every time; `make simulate-nightly` plays new ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEDS, SEEDS_A_CHUNK = 300, 75
CHUNK_SECONDS = 300


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    """Play seeds in processes of their own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *options],
        capture_output=True,
        text=True,
        timeout=CHUNK_SECONDS,
        check=False,
    )


def check(*options: str) -> None:
    played = simulate(*options)
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.timeout(CHUNK_SECONDS + 10)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_A_CHUNK))
def test_nothing_that_must_never_be_happens(first: int) -> None:
    check("--first", str(first), "--count", str(SEEDS_A_CHUNK))


@pytest.mark.parametrize("seed", ["1", "5"])
def test_a_seed_plays_the_same_every_time(seed: str) -> None:
    first, second = simulate("--seed", seed), simulate("--seed", seed, "--verbose")
    trace = first.stdout.splitlines()[-1]
    assert trace.startswith(f"seed {seed}: trace ")
    assert second.stdout.splitlines()[-1] == trace

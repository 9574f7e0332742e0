"""Background tasks: restarted or fatal, never unnoticed, never left behind."""

import asyncio
import contextlib

import pytest

from keepline.ops.backoff import Backoff
from keepline.ops.tasks import Tasks


class Owner:
    """Tasks with a sleep that takes no time and a list of what was fatal."""

    def __init__(self) -> None:
        self.fatal: list[tuple[str, BaseException]] = []
        self.delays: list[float] = []
        self.tasks = Tasks(
            lambda name, error: self.fatal.append((name, error)),
            new_backoff=lambda: Backoff(1, 4, uniform=lambda low, high: high),
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)


async def test_a_task_that_raises_runs_again_after_growing_waits() -> None:
    owner = Owner()
    runs = 0

    async def flaky() -> None:
        nonlocal runs
        runs += 1
        if runs <= 4:
            raise OSError("away")

    await asyncio.wait_for(owner.tasks.start("flaky", flaky, restart=True), 5)
    assert runs == 5
    assert owner.delays == [1, 2, 4, 4]
    assert owner.fatal == []


async def test_a_task_that_must_not_fail_is_reported() -> None:
    owner = Owner()
    error = ValueError("bug")

    async def broken() -> None:
        raise error

    await asyncio.wait_for(owner.tasks.start("broken", broken, restart=False), 5)
    assert owner.fatal == [("broken", error)]
    assert len(owner.tasks) == 0


async def test_closing_cancels_and_awaits_every_task() -> None:
    owner = Owner()
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    started = [
        owner.tasks.start(f"t{n}", forever, restart=restart) for n, restart in enumerate((True, False))
    ]
    await asyncio.wait(started, timeout=0)
    await owner.tasks.aclose()
    assert ended == [True, True]
    assert len(owner.tasks) == 0
    assert owner.fatal == []


async def test_a_task_that_will_not_end_does_not_hold_up_the_rest() -> None:
    owner = Owner()
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    task = owner.tasks.start("stubborn", stubborn, restart=False)
    await asyncio.wait([task], timeout=0)
    await owner.tasks.aclose(timeout=0.01)
    assert not task.done()
    let_go.set()
    await asyncio.wait_for(task, 5)


async def test_nothing_starts_after_closing() -> None:
    owner = Owner()
    await owner.tasks.aclose()

    async def late() -> None:
        """Never runs."""

    with pytest.raises(RuntimeError, match="late"):
        owner.tasks.start("late", late, restart=True)


async def test_a_task_that_loses_its_first_cancellation_is_ended_all_the_same() -> None:
    tasks = Tasks(lambda name, error: None)
    begun = asyncio.Event()

    async def loses_one() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = tasks.start("loses-one", loses_one, restart=True)
    await begun.wait()
    await tasks.aclose(timeout=0.5)
    assert task.cancelled()

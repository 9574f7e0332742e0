"""Death at any moment: a worker that does not survive the n-th step it takes towards one of its servers.

A step is either side of a command: before it is sent, and after it was carried out but before the answer is there.
What a task of the worker has sent by then is carried out, and that is all: nothing follows, whichever task it is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.client import Pipeline

_Command = Callable[..., Coroutine[Any, Any, Any]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the worker runs after it."""


class Doom:
    """Kills at the step `at`; `died` tells whether the worker lived to take it."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.died = False

    def step(self) -> None:
        self._left -= 1
        self.died = self._left <= 0
        if self.died:
            raise Killed


_doom: ContextVar[Doom | None] = ContextVar("doom", default=None)


def arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command to Redis or Postgres be two steps for tasks that are doomed."""
    for owner, name in (
        (asyncpg.connection.Connection, "execute"),
        (asyncpg.connection.Connection, "fetchval"),
        (redis.asyncio.Redis, "execute_command"),
        (Pipeline, "execute"),
    ):
        monkeypatch.setattr(owner, name, _in_steps(getattr(owner, name)))


def _in_steps(command: _Command) -> _Command:
    async def run(*args: Any, **options: Any) -> Any:
        doom = _doom.get()
        if doom is None:
            return await command(*args, **options)
        doom.step()
        answer = await command(*args, **options)
        doom.step()
        return answer

    return run


async def run_until_death(work: Coroutine[Any, Any, None], at: int, seconds: float = 20) -> bool:
    """Run a worker that dies at step `at`; returns False when it ended by itself before."""
    doom = Doom(at)

    async def doomed() -> None:
        _doom.set(doom)
        await work

    try:
        await asyncio.wait_for(asyncio.create_task(doomed()), seconds)
    except Killed:
        return True
    assert not doom.died, "a worker outlived its death"
    return False

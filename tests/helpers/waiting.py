"""Wait for something to become true, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]], *, timeout: float = ..., interval: float = ..., what: str = ...
) -> T: ...


@overload
async def eventually(
    predicate: Callable[[], T], *, timeout: float = ..., interval: float = ..., what: str = ...
) -> T: ...


async def eventually(
    predicate: Callable[[], object], *, timeout: float = 10.0, interval: float = 0.02, what: str = ""
) -> object:
    """Call `predicate` until its (awaited) value is true and return that; fail after `timeout` seconds.

    An AssertionError or OSError of the predicate counts as "not yet"; the last one is shown when time is up.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            value = predicate()
            last = await value if isinstance(value, Awaitable) else value
            if last:
                return last
        except (AssertionError, OSError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or 'condition'} not met within {timeout} s; last: {last!r}")
        await asyncio.sleep(interval)

"""The owner of background tasks: none fails unnoticed, and none outlives the program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keepline.ops.backoff import Backoff
from keepline.ops.errors import CannotRun

_log = structlog.get_logger(__name__)

CANCELS = 5
"""How often a task is asked to end before it is reported."""


class Tasks:
    """Starts named tasks, handles their failures, and ends them all on `aclose`.

    A task that returns is finished. One that raises is logged and, as its starter chose, restarted after a backoff, or
    reported to `on_fatal`, which ends the program.
    """

    def __init__(
        self,
        on_fatal: Callable[[str, BaseException], None],
        *,
        new_backoff: Callable[[], Backoff] = Backoff,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_fatal(name, error)` is called if a task that must not fail has failed."""
        self._on_fatal = on_fatal
        self._new_backoff = new_backoff
        self._sleep = sleep
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, run: Callable[[], Awaitable[None]], *, restart: bool) -> asyncio.Task[None]:
        """Run `run()` in a task. With `restart` it is called again whenever it raises; otherwise an error is fatal.

        Raises RuntimeError after `aclose`, when a task would have no owner.
        """
        if self._closed:
            raise RuntimeError(f"task {name} started after its owner was closed")
        body = self._keep_running(name, run) if restart else self._run_once(name, run)
        task = asyncio.create_task(body, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def aclose(self, timeout: float = 5.0) -> None:
        """Cancel all tasks and wait for their end. Those that do not end within `timeout` seconds are logged."""
        self._closed = True
        stuck = set(self._running)
        for _ in range(CANCELS):  # a client library may lose a cancellation that comes as its own wait ends
            for task in stuck:
                task.cancel()
            if not stuck:
                return
            _, stuck = await asyncio.wait(stuck, timeout=timeout / CANCELS)
        for task in stuck:
            _log.error("task_did_not_end", task=task.get_name(), timeout_seconds=timeout)

    async def _run_once(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except CannotRun as error:
            self._ends_program(name, error)
        except Exception as error:
            _log.exception("task_failed", task=name, restart=False)
            self._on_fatal(name, error)

    def _ends_program(self, name: str, error: CannotRun) -> None:
        _log.error("cannot_run", task=name, error=str(error))
        self._on_fatal(name, error)

    async def _keep_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        backoff = self._new_backoff()
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await run()
                return
            except CannotRun as error:
                self._ends_program(name, error)
                return
            except Exception:
                if loop.time() - started > 60:  # it had recovered, so this is a new fault
                    backoff.reset()
                delay = backoff.next()
                _log.exception("task_failed", task=name, restart=True, retry_in_ms=round(delay * 1000))
            await self._sleep(delay)

"""An event loop for several processes in one, on a virtual clock, in an order that a seed decides.

Each callback belongs to the process in whose context it was scheduled. Within a process callbacks run in the order in
which they became ready, as asyncio has it; which process is next is drawn. A process can be frozen: its callbacks wait
until it is thawed. One that is killed is frozen for good, and thawed only to be cleared away when all is over.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio.events import Handle, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

HANDLES_A_ROUND = 64


class Process:
    """What runs apart from everything else, and can stop apart. Each of its callbacks takes `cost` seconds."""

    __slots__ = ("cost", "frozen", "name", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.cost = 0.0
        self.ready: deque[Handle] = deque()

    def context(self) -> Context:
        """A context whose callbacks are this process's."""
        context = copy_context()
        context.run(_process.set, self)
        return context


WORLD = Process("world")
"""What is no process of the cluster: the network, the servers, the clients, the faults."""

_process: ContextVar[Process] = ContextVar("process")


class SimulationLoop(asyncio.BaseEventLoop):
    """The loop. Its clock starts at 0 and jumps to the next timer when nothing is ready."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._now = 0.0
        self._random = random
        self._count = 0
        self._timers: list[tuple[float, int, TimerHandle, Process]] = []
        self._runnable: list[Process] = []
        self._stopping = False
        self.steps = 0

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        if context is None:
            context = copy_context()
        handle = Handle(callback, args, self, context)
        self._put(handle, context.get(_process, WORLD))
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        if context is None:
            context = copy_context()
        timer = TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer, context.get(_process, WORLD)))
        return timer

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of a process."""
        return self.create_task(work, context=process.context())

    def freeze(self, process: Process) -> None:
        """Let nothing of a process run until it is thawed."""
        process.frozen = True
        if process in self._runnable:
            self._runnable.remove(process)

    def thaw(self, process: Process) -> None:
        """Let a process run on."""
        process.frozen = False
        if process.ready and process not in self._runnable:
            self._runnable.append(process)

    def _put(self, handle: Handle, process: Process) -> None:
        if not process.ready and not process.frozen:
            self._runnable.append(process)
        process.ready.append(handle)

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        pass

    def _run_once(self) -> None:
        for _ in range(HANDLES_A_ROUND):
            if self._stopping:
                return
            if not self._runnable:
                self._advance()
                continue
            runnable = self._runnable
            at = self._random.randrange(len(runnable)) if len(runnable) > 1 else 0
            process = runnable[at]
            handle = process.ready.popleft()
            if not process.ready:
                runnable.pop(at)
            if not handle.cancelled():
                self.steps += 1
                handle._run()
                if process.cost:
                    self._now += process.cost
                    self._make_due_ready()

    def _advance(self) -> None:
        """Jump to the next timer, and make all ready that is due then."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        assert timers, "nothing will ever happen: no timer is set"
        self._now = max(self._now, timers[0][0])
        self._make_due_ready()

    def _make_due_ready(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self._now:
            _, _, timer, process = heapq.heappop(timers)
            if not timer.cancelled():
                self._put(timer, process)

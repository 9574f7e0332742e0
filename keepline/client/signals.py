"""Carries the signals of a call over its connections, one after the other: the I/O around `Delivery`."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

from keepline.client.connection import Connection
from keepline.client.delivery import Delivery, DeliveryCounts
from keepline.client.errors import CallEnded, ConnectionLost, KeeplineError, SignalLost
from keepline.client.frames import Frame, encode
from keepline.client.limits import Limits, check_size
from keepline.client.options import Options
from keepline.client.outbox import Ticket

_ENVELOPE = {"type": "signal", "room": "x" * 36, "stream": "x" * 64, "n": 2**53 - 1}
"""As large as the frame around a signal gets."""


class _Promise(Ticket):
    """A signal that somebody may wait for."""

    def __init__(self, signals: Signals) -> None:
        super().__init__()
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)
        self._signals = signals

    def settle(self, code: str | None) -> None:
        if self.future.done():
            return
        if code is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self._signals.end or SignalLost(code))


class Signals:
    """One call's signals to and from its peer."""

    def __init__(self, room_id: str, options: Options) -> None:
        self.end: KeeplineError | None = None
        self._options = options
        self._delivery = Delivery(
            room_id, secrets.token_urlsafe(9), options.signals_waiting, options.signal_bytes_waiting
        )
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._pump = asyncio.create_task(self._run(), name="keepline-signals")

    # --- what the app says ---

    def send(self, data: Any, limits: Limits) -> asyncio.Future[None]:
        """Send a signal: done once the peer has it.

        Raises SignalQueueFull, RequestFailed for one that no node takes, TypeError.
        """
        text = encode(data)
        check_size(encode(_ENVELOPE) + text, limits)
        promise = _Promise(self)
        self._delivery.push(text, promise)
        self._changed.set()
        return promise.future

    @property
    def counts(self) -> DeliveryCounts:
        """What it has cost until now."""
        return replace(self._delivery.counts, duplicates=self._delivery.incoming.duplicates)

    # --- what happens to the call ---

    def flow(self, connection: Connection) -> None:
        """Both are there, or there again."""
        self._connection = connection
        self._delivery.frame_bytes = connection.limits.frame_bytes
        self._delivery.flow(self._now())
        self._changed.set()

    def pause(self) -> None:
        """One of the two is away, or about to go."""
        self._delivery.pause()

    def peer_left(self) -> None:
        """The peer stepped out on purpose."""
        self._delivery.peer_left()
        self._delivery.pause()

    def peer_back(self) -> None:
        """The peer's side was taken back, perhaps by a device that was there before."""
        self._delivery.incoming.hear_retired()

    def hold(self, seconds: float) -> None:
        """The peer reads too slowly."""
        self._delivery.hold(self._now() + 1_000 * seconds)

    def close(self, error: KeeplineError) -> None:
        """It is over: whoever waits for a signal gets this error."""
        self.end = error
        self._delivery.fail("room_ended" if isinstance(error, CallEnded) else "closed")
        self._pump.cancel()

    # --- what comes in ---

    def receive(self, frame: Frame) -> list[Any]:
        """Take a signal or an acknowledgement: what the app gets, in order. Raises KeyError or TypeError."""
        if frame["type"] == "ack":
            self._delivery.acknowledged(frame["stream"], frame["n"], self._now())
            received = []
        else:
            signal = frame.get("stream"), frame.get("n"), frame["data"]
            received = self._delivery.receive(*signal, self._now()).data
        self._changed.set()
        return received

    # --- the pump ---

    def _now(self) -> float:
        return 1_000 * self._options.clock()

    async def _run(self) -> None:
        while True:
            connection = self._connection
            if connection is None or not self._delivery.due(self._now()):
                await self._wait()
                continue
            await connection.paced()
            frame = self._delivery.next(self._now()) if connection is self._connection else None
            if frame is not None:
                try:
                    await connection.send_text(frame)
                except ConnectionLost:
                    self._delivery.pause()  # until the next connection

    async def _wait(self) -> None:
        """Wait until something has happened, or is due."""
        wake_at = self._delivery.wake_at()
        seconds = None if wake_at is None else max(0.0, (wake_at - self._now()) / 1_000)
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


def _retrieve(future: asyncio.Future[None]) -> None:
    """Who does not wait for a signal need not learn what became of it."""
    if not future.cancelled():
        future.exception()

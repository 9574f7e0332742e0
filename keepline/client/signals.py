"""Carries a call's signals over successive connections: the I/O around `Delivery`."""

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
"""The largest possible frame around a signal."""


class _Promise(Ticket):
    """A signal that the app may await."""

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

    # --- requests of the app ---

    def send(self, data: Any, limits: Limits) -> asyncio.Future[None]:
        """Send a signal. The future is done once the peer has it.

        Raises SignalQueueFull, RequestFailed if nodes would refuse the signal, or TypeError if it is not JSON.
        """
        text = encode(data)
        check_size(encode(_ENVELOPE) + text, limits)
        promise = _Promise(self)
        self._delivery.push(text, promise)
        self._changed.set()
        return promise.future

    @property
    def counts(self) -> DeliveryCounts:
        """The cost of reliable delivery so far."""
        return replace(self._delivery.counts, duplicates=self._delivery.incoming.duplicates)

    # --- what happens to the call ---

    def flow(self, connection: Connection) -> None:
        """Both sides are present (again)."""
        self._connection = connection
        self._delivery.frame_bytes = connection.limits.frame_bytes
        self._delivery.flow(self._now())
        self._changed.set()

    def pause(self) -> None:
        """One side is away, or about to leave."""
        self._delivery.pause()

    def peer_left(self) -> None:
        """The peer left deliberately."""
        self._delivery.peer_left()
        self._delivery.pause()

    def peer_back(self) -> None:
        """The peer's side reconnected, possibly from a device that held it earlier."""
        self._delivery.incoming.hear_retired()

    def hold(self, seconds: float) -> None:
        """The peer reads too slowly."""
        self._delivery.hold(self._now() + 1_000 * seconds)

    def close(self, error: KeeplineError) -> None:
        """The call is over: signals that are still awaited fail with `error`."""
        self.end = error
        self._delivery.fail("room_ended" if isinstance(error, CallEnded) else "closed")
        self._pump.cancel()

    # --- what comes in ---

    def receive(self, frame: Frame) -> list[Any]:
        """Process a signal or an acknowledgement, and return the data for the app, in order.

        Raises KeyError or TypeError for a malformed frame.
        """
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
        """Wait for an event or for `wake_at`."""
        wake_at = self._delivery.wake_at()
        seconds = None if wake_at is None else max(0.0, (wake_at - self._now()) / 1_000)
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark the exception as retrieved: the app may ignore the outcome of a signal."""
    if not future.cancelled():
        future.exception()

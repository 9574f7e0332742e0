"""The load: pairs of clients that signal each other, in one process.

Two modes. *Bounce*: a number of messages is in flight in each pair, and each receiver answers with one, so the server
is never idle; this shows its throughput, and the latency at that load. *Paced*: a fixed rate over all pairs, well below
the capacity of every server; this shows the latency without queueing. Nothing here decodes a message. That messages
arrive as they were sent is checked before, and that none is missing after.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from bench.processes import cpu_seconds
from bench.websocket import WebSocketError, answer_to, client_frame, frame_end, server_head

WARM_UP_SECONDS = 0.5
DRAIN_SECONDS = 10.0
_TICK_SECONDS = 0.001
_now = time.perf_counter


@dataclass(slots=True)
class Tally:
    """The shared state of all clients while a load runs. Latencies are in seconds."""

    bouncing: bool = False
    recording: bool = False
    latencies: array[float] = field(default_factory=lambda: array("d"))
    error: WebSocketError | None = None


class Client(asyncio.Protocol):
    """One end of a pair. `sent` has the send times of messages that the peer has not received yet."""

    __slots__ = ("_expected", "_rest", "_size", "_tally", "_transport", "frame", "peer", "sent")

    def __init__(self, transport: asyncio.Transport, outgoing: bytes, incoming: int, tally: Tally) -> None:
        """Take over a connection that sends the text `outgoing` and receives texts of `incoming` bytes."""
        self.frame = client_frame(outgoing)
        self.sent: deque[float] = deque()
        self.peer: Client
        self._transport = transport
        self._expected = server_head(incoming)
        self._size = len(self._expected) + incoming
        self._rest = b""
        self._tally = tally
        transport.set_protocol(self)

    def send(self, count: int = 1) -> None:
        """Send `count` messages now, in one write."""
        self.sent.extend([_now()] * count)
        self._transport.write(self.frame * count)

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now = _now()
        count = self._count(data)
        if not count:
            return
        sent, tally = self.peer.sent, self._tally
        if tally.recording:
            tally.latencies.extend([now - sent.popleft() for _ in range(count)])
        else:
            for _ in range(count):
                sent.popleft()
        if tally.bouncing:
            self.sent.extend([now] * count)
            self._transport.write(self.frame * count if count > 1 else self.frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.error = self._tally.error or WebSocketError(f"connection lost under load: {exc}")

    def _count(self, data: bytes) -> int:
        """Number of the peer's messages that these bytes complete."""
        if self._rest:
            data = self._rest + data
        at = count = 0
        expected, size, end = self._expected, self._size, len(data)
        while at + size <= end and data.startswith(expected, at):
            count += 1
            at += size
        self._rest = b""
        if at < end:
            begin, stop = frame_end(data, at)
            if stop > end:
                self._rest = data[at:]
            else:
                self._other(data[at], data[begin:stop])
                return count + self._count(data[stop:])
        return count

    def _other(self, start: int, payload: bytes) -> None:
        """Handle a frame that is not the peer's: pings of WebSocket and of Engine.IO."""
        try:
            self._transport.write(client_frame(b"3") if payload == b"2" else answer_to(start, payload))
        except WebSocketError as error:
            self._tally.error = error


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement. Latencies in ms; CPU time in µs per message, None if the system does not report it."""

    messages: int
    seconds: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float | None
    redis_cpu_us: float | None
    generator_cpu_us: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


@dataclass(frozen=True, slots=True)
class Watched:
    """The processes whose CPU time counts."""

    servers: tuple[int, ...]
    redis: tuple[int, ...] = ()


class Load:
    """Pairs that are ready, and the measurements with them."""

    def __init__(self, clients: Sequence[Client], tally: Tally, watched: Watched) -> None:
        """Take the clients in the order side 1, side 2, side 1, …, so that each is next to its peer."""
        self._clients = clients
        self._tally = tally
        self._watched = watched

    async def bounce(self, in_flight: int, seconds: float) -> Result:
        """Keep `in_flight` messages in flight in each pair. Raises WebSocketError if one is lost."""
        self._tally.bouncing = True
        for client in self._clients[::2]:
            client.send(in_flight)
        await asyncio.sleep(WARM_UP_SECONDS)
        result = await self._measure(asyncio.sleep(seconds))
        self._tally.bouncing = False
        await self._none_lost()
        return result

    async def pace(self, rate: float, seconds: float) -> Result:
        """Send `rate` messages per second, over all pairs in turn. Raises WebSocketError if one is lost."""
        await self._send_paced(rate, WARM_UP_SECONDS)
        result = await self._measure(self._send_paced(rate, seconds))
        await self._none_lost()
        return result

    async def _send_paced(self, rate: float, seconds: float) -> None:
        began, done, clients = _now(), 0, self._clients
        while (elapsed := _now() - began) < seconds:
            due = int(elapsed * rate)
            for turn in range(done, due):
                clients[turn % len(clients)].send()
            done = due
            await asyncio.sleep(_TICK_SECONDS)

    async def _measure(self, work: Awaitable[None]) -> Result:
        tally, watched = self._tally, self._watched
        tally.latencies = array("d")
        gc.collect()
        gc.disable()
        try:
            before = cpu_seconds(watched.servers), cpu_seconds(watched.redis), time.process_time()
            began = _now()
            tally.recording = True
            await work
            tally.recording = False
            seconds = _now() - began
            after = cpu_seconds(watched.servers), cpu_seconds(watched.redis), time.process_time()
        finally:
            gc.enable()
        ordered = sorted(tally.latencies)
        messages = len(ordered)
        if not messages:
            raise tally.error or WebSocketError("no message arrived")
        return Result(
            messages,
            seconds,
            ordered[messages // 2] * 1e3,
            ordered[messages * 99 // 100] * 1e3,
            _each(before[0], after[0], messages),
            _each(before[1], after[1], messages),
            (after[2] - before[2]) / messages * 1e6,
        )

    async def _none_lost(self) -> None:
        deadline = _now() + DRAIN_SECONDS
        while any(client.sent for client in self._clients):
            if self._tally.error is not None or _now() > deadline:
                missing = sum(len(client.sent) for client in self._clients)
                raise self._tally.error or WebSocketError(f"{missing} messages never arrived")
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Drop all connections."""
        for client in self._clients:
            client.close()


def _each(before: float | None, after: float | None, messages: int) -> float | None:
    return None if before is None or after is None else (after - before) / messages * 1e6

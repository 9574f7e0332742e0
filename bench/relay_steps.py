"""`python -m bench.relay_steps`: what each step of a signal costs in a node, apart from the kernel and the event loop.

Two connections of one room in one process, with the parts that a node has. Their transports drop what is written. The
fastest of many short turns counts, to keep other work on the machine out of the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import uvloop
from websockets.frames import Frame, Opcode

from bench.relay_overhead import HERE, ROOM, SESSIONS, room_of_two
from keepline.ops.origins import Origins
from signal_node.protocol.session import SessionLimits, Stage
from signal_node.signaling.relay import SignalRelay
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import OfferOutcomes
from signal_node.transport.budget import Allowances
from signal_node.transport.connection import AT_ONCE_BYTES, Connection
from signal_node.transport.connections import Connections

CALLS, TURNS, BURST = 100, 300, 8
UNLIMITED = 1e9
REQUEST = (
    b"GET /v1 HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)


class Dropping(asyncio.Transport):
    """Drops what is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


async def _pair(loop: asyncio.AbstractEventLoop) -> tuple[Connection, Connection, NegotiationLog]:
    """Two connections whose sessions hold the two sides of a room."""
    clients = Connections(
        loop,
        limits=SessionLimits(frames_per_second=UNLIMITED, frames_burst=int(UNLIMITED)),
        max_frame=65_536,
        max_outgoing=1_048_576,
        origins=Origins(()),
        hello_seconds=60.0,
        ping_seconds=60.0,
        pong_seconds=60.0,
        work=Allowances(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED),
    )
    rooms = cast(Any, {ROOM: room_of_two(HERE)})
    log, offers = NegotiationLog(), OfferOutcomes(rooms.get, time.monotonic)
    relay = SignalRelay(HERE, clients, rooms, cast(Any, None), log, offers, loop)
    handler = cast(Any, SimpleNamespace(relay=relay.relay, draining=lambda: False, opened=clients.opened))
    pair = []
    for side, session in enumerate(SESSIONS, start=1):
        connection = clients.accept(handler)
        connection.session.id = session
        connection.connection_made(Dropping())
        connection.data_received(REQUEST)
        while clients.get(session) is None:
            await asyncio.sleep(0)
        connection.session.stage = Stage.READY
        connection.session.rooms.hold(ROOM, cast(Any, side))
        pair.append(connection)
    return pair[0], pair[1], log


def _text(size: int) -> str:
    """A signal of that size with a candidate."""
    frame = {"type": "signal", "room": ROOM, "data": {"candidate": {"candidate": "", "sdpMid": "0"}}}
    room_left = size - len(json.dumps(frame, separators=(",", ":")))
    frame["data"] = {"candidate": {"candidate": "x" * room_left, "sdpMid": "0"}}
    return json.dumps(frame, separators=(",", ":"))


async def _least(step: Callable[[], object], each: int = 1) -> float:
    """Nanoseconds of a call."""
    least = UNLIMITED
    for _ in range(TURNS):
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            step()
        least = min(least, time.perf_counter_ns() - began)
        await asyncio.sleep(0)
    return least / CALLS / each


async def _run(size: int) -> None:
    loop = asyncio.get_running_loop()
    sender, receiver, log = await _pair(loop)
    text = _text(size)
    packet = Frame(Opcode.TEXT, text.encode()).serialize(mask=True)
    burst = packet * BURST
    (effect,) = sender.session.receive(text, loop.time())
    data = cast(Any, effect).data

    def in_burst() -> None:
        sender.data_received(burst)
        receiver.outgoing.flush()

    steps: list[tuple[str, Callable[[], object], int]] = [
        ("a signal in a packet of its own", lambda: sender.data_received(packet), 1),
        ("  the frame becomes a text", lambda: sender.websocket.single_text(packet), 1),
        ("  the session decodes, checks, encodes", lambda: sender.session.receive(text, loop.time()), 1),
        ("  the negotiation log notes it", lambda: log.relayed(ROOM, 1, SESSIONS[0], data, 0.0), 1),
        ("  the receiver's frame is made", lambda: receiver.websocket.frame(data), 1),
        ("  (an empty call)", lambda: None, 1),
    ]
    if len(burst) <= AT_ONCE_BYTES:
        steps.insert(1, (f"a signal of {BURST} in a packet", in_burst, BURST))
    for name, step, each in steps:
        print(f"{name:42} {await _least(step, each):6,.0f} ns")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_steps", description=__doc__)
    parser.add_argument("--size", type=int, default=300, help="bytes of a signal, 200 to 16,000 (300)")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options.size))


if __name__ == "__main__":
    main()

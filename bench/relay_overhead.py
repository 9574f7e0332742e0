"""`python -m bench.relay_overhead`: the cost of counting, timing and recognising offers, per relayed signal.

One node relays the same frames in one process, with and without counting, in turns; nothing is written to a socket.
Throughput of whole servers varies by more between two runs than this costs.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from msgspec import Raw

from keepline.room.commands import Join, Open
from keepline.room.record import ChatMode, Room
from keepline.room.rules import Rules
from keepline.room.state import apply
from signal_node.protocol.client_frames import Signal, forwarded
from signal_node.protocol.effects import Relay
from signal_node.signaling.relay import SignalRelay
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import OfferOutcomes
from signal_node.transport.connection import Connection

SIGNALS = 100_000
TURNS = 9
ROOM = "7f4e6f0e-3a5f-4a6e-9d53-0c2d5f6f7a01"
HERE, SESSIONS = "here", ("session-1-aaaaaa", "session-2-bbbbbb")


class BareRelay(SignalRelay):
    """Relays without counting, timing or recognising anything."""

    def relay(self, connection: Connection, relay: Relay) -> None:
        room = self._rooms.get(relay.room_id)
        if room is None:
            return
        peer = room.side_2 if relay.side == 1 else room.side_1
        if peer.session is None or peer.node is None:
            return
        if peer.node != self._node:
            self._outbox.send(peer.node, peer.session, relay.data)
        elif (receiver := self._clients.get(peer.session)) is not None:
            receiver.outgoing.relay(relay.data)


def room_of_two(node_2: str) -> Room:
    """A room whose second side is on that node."""
    room: Room | None = None
    users = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
    for command in (
        Open(ROOM, *users, ChatMode.VIDEO, 0),
        Join(1, HERE, SESSIONS[0]),
        Join(2, node_2, SESSIONS[1]),
    ):
        room, _ = apply(room, command, 0, Rules())
    return cast(Room, room)


def _ready(
    kind: type[SignalRelay], room: Room, loop: asyncio.AbstractEventLoop, log: Any = None
) -> SignalRelay:
    receiver = SimpleNamespace(outgoing=SimpleNamespace(relay=lambda data: True))
    clients = cast(Any, SimpleNamespace(get=lambda session: receiver))
    outbox = cast(Any, SimpleNamespace(send=lambda *_: True, time_latency=lambda node: None))
    rooms = cast(Any, {ROOM: room})
    offers = OfferOutcomes(rooms.get, time.monotonic)
    return kind(HERE, clients, rooms, outbox, log or NegotiationLog(), offers, loop)


def _frame(data: object) -> bytes:
    return forwarded(Signal(room=ROOM, stream="s" * 22, n=1_000, data=Raw(msgspec.json.encode(data))))


async def _nanoseconds(relay: SignalRelay, frame: bytes) -> float:
    connection = cast(Any, SimpleNamespace(heard_at=0.0, session=SimpleNamespace(id=SESSIONS[0])))
    effect = Relay(ROOM, 1, frame)
    began = time.perf_counter()
    for _ in range(SIGNALS // 1_000):
        for _ in range(1_000):
            relay.relay(connection, effect)
        await asyncio.sleep(0)
    return (time.perf_counter() - began) / SIGNALS * 1e9


async def _compare(where: str, what: str, room: Room, frame: bytes) -> None:
    loop = asyncio.get_running_loop()
    nothing = SimpleNamespace(relayed=lambda *_: None)  # offers are not recognised either
    relays = [
        _ready(BareRelay, room, loop),
        _ready(SignalRelay, room, loop, nothing),
        _ready(SignalRelay, room, loop),
    ]
    turns = [[await _nanoseconds(relay, frame) for relay in relays] for _ in range(TURNS)]
    bare, counted, remembered = (min(column) for column in zip(*turns, strict=True))
    print(
        f"{where:10} {what:9} {bare:5.0f} ns bare, {counted - bare:+5.0f} ns counted and timed,"
        f" {remembered - counted:+5.0f} ns remembered for trace and drain"
    )


async def _run() -> None:
    candidate = _frame({"candidate": {"candidate": "candidate:1 1 udp " + "1" * 180, "sdpMid": "0"}})
    offer = _frame({"description": {"type": "offer", "sdp": "v=0\r\n" + "a=x\r\n" * 600}})
    for where, node_2 in (("same node", HERE), ("other node", "there")):
        for what, frame in (("candidate", candidate), ("offer", offer)):
            await _compare(where, what, room_of_two(node_2), frame)


def main() -> None:
    """Measure and print."""
    asyncio.run(_run())


if __name__ == "__main__":
    main()

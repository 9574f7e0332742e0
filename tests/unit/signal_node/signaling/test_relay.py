"""Signals between nodes whose receiver reads too slowly: its node tells that of the sender, and that one the sender."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from keepline.room.record import Room
from signal_node.bus.outbox import Outbox
from signal_node.protocol.effects import Relay
from signal_node.rooms.cache import Rooms
from signal_node.signaling.relay import SLOW_MS, SignalRelay
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import OfferOutcomes
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2, USER_2, met
from tests.unit.signal_node.sockets import Browser, Notes, StillLoop, new_clients

MOST = 1_000


class Node:
    """A node that has one side of a room; the other is elsewhere."""

    def __init__(self, room: Room) -> None:
        self.loop, self.handler = StillLoop(), Notes()
        self.clients = self.handler.clients = new_clients(self.loop, max_outgoing=MOST)
        self.room, self.told = room, list[tuple[str, str, str]]()
        self.sent: list[bytes] = []
        self.relay = SignalRelay(
            "here",
            self.clients,
            cast(Rooms, self),
            cast(Outbox, self),
            NegotiationLog(),
            OfferOutcomes(self.get, self.loop.time),
            cast(asyncio.AbstractEventLoop, self.loop),
        )

    def get(self, room_id: str) -> Room | None:
        return self.room if room_id == ROOM else None

    def send(self, node: str, session: str, data: bytes) -> bool:
        self.sent.append(data)
        return True

    def tell_slow(self, node: str, session: str, room_id: str) -> None:
        self.told.append((node, session, room_id))

    def browser(self, session: str, side: Any) -> Browser:
        browser = Browser(self.clients, self.handler, self.loop, open=False)
        browser.connection.session.id = session
        browser.connection.data_received(HANDSHAKE)
        self.loop.tick()
        browser.is_ready(USER_2)
        browser.connection.session.rooms.hold(ROOM, side)
        return browser


HANDSHAKE = (
    b"GET /v1 HTTP/1.1\r\nHost: keepline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)


def test_the_node_of_a_peer_is_told_that_a_client_does_not_read_and_seldom_again() -> None:
    node = Node(met("there", "here"))
    bob = node.browser(SESSION_2, 2)
    bob.pipe.unread = MOST
    told = ("there", SESSION_2, ROOM)
    node.relay.received(SESSION_2, b"x" * (MOST + 1))
    assert node.told == [], "there was room for one"
    for _ in range(3):
        node.relay.received(SESSION_2, b"x")
    assert (node.told, node.relay.counts.dropped) == ([told], 3)
    node.loop.now += SLOW_MS / 4_000
    node.relay.received(SESSION_2, b"x")
    assert node.told == [told, told]
    bob.pipe.unread = 0
    node.relay.received(SESSION_2, b"x")
    assert node.relay.counts.dropped == 4, "there is room again"


def test_a_node_that_is_told_so_refuses_signals_for_a_while_and_tells_their_sender() -> None:
    node = Node(met("here", "there"))
    alice = node.browser(SESSION_1, 1)
    node.relay.slow_received(SESSION_2, ROOM)
    assert node.relay.counts.slow == 1, "of the one that was dropped there"
    signal = Relay(ROOM, 1, b'{"type":"signal"}')
    node.relay.relay(alice.connection, signal)
    assert (node.sent, node.relay.counts.slow) == ([], 2)
    node.loop.now += SLOW_MS / 1_000
    node.relay.relay(alice.connection, signal)
    assert node.sent == [signal.data]

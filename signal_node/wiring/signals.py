"""The path of signals, on this node and between nodes."""

from __future__ import annotations

import time

from signal_node.bus.inbox import Inbox
from signal_node.bus.lanes import Channels
from signal_node.bus.outbox import Outbox
from signal_node.bus.publisher import RedisPublisher
from signal_node.signaling.inbox_receiver import InboxReceiver
from signal_node.signaling.relay import SignalRelay
from signal_node.signaling.takeover import Takeover
from signal_node.telemetry.negotiation_log import NegotiationLog
from signal_node.telemetry.offer_outcomes import OfferOutcomes
from signal_node.transport.connections import Connections
from signal_node.wiring.rooms import RoomParts
from signal_node.wiring.surroundings import Surroundings


class SignalParts:
    """Relay, inbox and outbox."""

    def __init__(self, around: Surroundings, clients: Connections, rooms: RoomParts) -> None:
        node, clock, cache = around.node, around.clock, rooms.cache
        channels = Channels(around.client, around.partitions)
        self.negotiation_log = NegotiationLog()
        self.offer_outcomes = OfferOutcomes(cache.get, time.monotonic)
        self.outbox = Outbox(channels, RedisPublisher(around.client), node, clock=clock.seconds)
        self.relay = SignalRelay(
            node, clients, cache, self.outbox, self.negotiation_log, self.offer_outcomes, around.loop
        )
        self.inbox = Inbox(
            channels,
            node,
            self.outbox.name,
            InboxReceiver(self.relay, rooms.sessions, cache, rooms.reconciler.suspicions),
            clock.monotonic,
            clock=clock.seconds,
        )
        self.takeover = Takeover(node, rooms.sessions, self.outbox)

"""The inbox bus over a client that holds its answers back: packing, order, limits, broken packets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily
from redis.exceptions import ConnectionError as RedisConnectionError

from keepline.ops.redis.client import Client
from keepline.room.codec import BadRecord
from signal_node.bus import outbox as outbox_module
from signal_node.bus.inbox import PUT_BACK_SECONDS, SILENT_SECONDS, Inbox
from signal_node.bus.lanes import Channels
from signal_node.bus.outbox import PROBE_SECONDS, Outbox
from signal_node.bus.packets import notice, pack
from signal_node.protocol.session import SESSION_ID_BYTES
from tests.helpers.waiting import eventually
from tests.unit.signal_node.calls import ROOM, SESSION_1, SESSION_2
from tests.unit.signal_node.stores import turns

WAIT_SECONDS = 10.0
Item = tuple[str, bytes] | str


class Received:
    """Notes what comes out of an inbox: frames as pairs, replaced sessions by name, notices as bytes."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.notices: list[bytes] = []
        self.gaps = 0
        self.slow: list[tuple[str, str]] = []
        self.by_backend: list[bool] = []

    def slow_received(self, session: str, room_id: str) -> None:
        self.slow.append((session, room_id))

    def frame_received(self, session: str, data: bytes) -> None:
        self.items.append((session, data))

    def replaced_received(self, session: str, *, by_backend: bool) -> None:
        self.items.append(session)
        self.by_backend.append(by_backend)

    def notice_received(self, data: bytes) -> None:
        if not data.startswith(b"{"):
            raise BadRecord("not a notice")
        self.notices.append(data)

    def inbox_gap(self) -> None:
        self.gaps += 1


class PubSub:
    """A subscription; messages come from the test."""

    def __init__(self, messages: asyncio.Queue[Any]) -> None:
        self._messages = messages
        self.is_connected = True
        self.channels: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def subscribe(self, channel: str) -> None:
        self.channels.append(channel)

    @property
    def connection(self) -> Self:
        return self

    async def read_response(self, **_: object) -> Any:
        message = await self._messages.get()
        if callable(message):
            return message()
        if isinstance(message, Exception):
            raise message
        return message


class Redis:
    """What the bus uses of a client and of a publisher. While `open` is not set, no write is answered."""

    def __init__(self) -> None:
        self.writes: list[list[tuple[str, bytes]]] = []
        self.failures: list[Exception] = []
        self.closed = False
        self.open = asyncio.Event()
        self.open.set()
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.subscription = PubSub(self.messages)

    async def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.writes.append(list(messages))
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)

    async def aclose(self) -> None:
        self.closed = True

    def pubsub(self, **_: object) -> PubSub:
        return self.subscription

    async def publish(self, channel: str, data: bytes) -> None:
        self.writes.append([(channel, data)])
        if self.failures:
            raise self.failures.pop(0)

    async def subscribed(self) -> None:
        self.messages.put_nowait([b"subscribe", b"keepline:inbox:here", 1])
        await turns()

    async def publish_here(self, data: bytes) -> None:
        self.messages.put_nowait([b"message", b"keepline:inbox:here", data])
        await turns()


class Node:
    """Outbox and inbox, their Redis, and what was received."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.received = Received()
        self.now = 100.0
        channels = Channels(cast(Client, self.redis), 16)
        self.outbox = Outbox(channels, self.redis, "here")
        self.inbox = Inbox(channels, "here", self.outbox.name, self.received, lambda: self.now)

    async def written(self, count: int) -> list[list[tuple[str, bytes]]]:
        await eventually(lambda: len(self.redis.writes) >= count, what=f"{count} writes", interval=0.001)
        return self.redis.writes


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, RedisConnectionError):
            await task


def unpacked(data: bytes) -> list[Item]:
    """What a node makes of a packet."""
    received = Received()
    Inbox(Channels(cast(Client, None), 16), "there", "there/1", received).receive(data)
    return received.items


# --- out ---


async def test_what_gathers_for_a_node_within_a_tick_is_one_publish() -> None:
    node = Node()
    async with running(node.outbox.run()):
        for number in range(50):
            node.outbox.send("there", SESSION_1, b"%d" % number)
            node.outbox.send("elsewhere", SESSION_2, b"x")
        node.outbox.replace("there", SESSION_2)
        (write,) = await node.written(1)
    assert [channel for channel, _ in write] == ["keepline:inbox:there", "keepline:inbox:elsewhere"]
    assert unpacked(write[0][1]) == [*((SESSION_1, b"%d" % number) for number in range(50)), SESSION_2]
    assert unpacked(write[1][1]) == [(SESSION_2, b"x")] * 50


async def test_a_packet_may_say_when_it_was_sent_so_that_the_receiver_knows_how_long_it_took() -> None:
    redis, clock = Redis(), iter((1_000.0, 1_000.25, 1_002.0)).__next__
    channels = Channels(cast(Client, redis), 16)
    outbox = Outbox(channels, redis, "here", clock=clock)
    async with running(outbox.run()):
        for number in range(3):
            outbox.send("there", SESSION_1, b"%d" % number)
        outbox.time_latency("there")
        outbox.time_latency("there")
        await eventually(lambda: redis.writes, what="a packet", interval=0.001)
    ((_, packet),) = redis.writes[0]
    assert unpacked(packet) == [(SESSION_1, b"%d" % number) for number in range(3)]
    receiving = Inbox(channels, "there", "there/1", Received(), clock=clock)
    receiving.receive(packet)
    family = HistogramMetricFamily("hop", "hop")
    receiving.latency.add_to(family)
    assert {s.name: s.value for s in family.samples if s.name != "hop_bucket"} == {
        "hop_count": 1,
        "hop_sum": 2.0,
    }
    assert outbox.packets == 1


async def test_sending_never_waits_and_what_gathers_meanwhile_is_one_publish_more() -> None:
    node = Node()
    node.redis.open.clear()
    async with running(node.outbox.run()):
        node.outbox.send("there", SESSION_1, b"first")
        await node.written(1)
        for number in range(3):
            node.outbox.send("there", SESSION_1, b"%d" % number)
            await turns()
        assert len(node.redis.writes) == 1
        node.redis.open.set()
        _, second = await node.written(2)
    ((_, packet),) = second
    assert unpacked(packet) == [(SESSION_1, b"0"), (SESSION_1, b"1"), (SESSION_1, b"2")]


async def test_packets_to_each_node_are_numbered() -> None:
    node = Node()
    async with running(node.outbox.run()):
        for count, to in enumerate(["there", "there", "elsewhere", "there"], start=1):
            node.outbox.send(to, SESSION_1, b"x")
            await node.written(count)
    packets = [packet for write in node.redis.writes for _, packet in write]
    names = {packet[2 : 2 + packet[1]] for packet in packets}
    numbers = [int.from_bytes(packet[2 + packet[1] : 10 + packet[1]], "big") for packet in packets]
    assert numbers == [1, 2, 1, 3]
    (name,) = names
    assert name.startswith(b"here/"), "the node, and which start of it"


async def test_what_cannot_be_published_is_dropped_and_counted() -> None:
    node = Node()
    node.redis.failures.append(RedisConnectionError("gone"))
    async with running(node.outbox.run()):
        for _ in range(3):
            node.outbox.send("there", SESSION_1, b"lost")
        await node.written(1)
        node.outbox.send("there", SESSION_1, b"kept")
        _, second = await node.written(2)
    assert node.redis.closed, "the publisher ends with its task"
    assert node.outbox.dropped == 3
    assert unpacked(second[0][1]) == [(SESSION_1, b"kept")]


async def test_what_gathers_during_a_failure_is_sent_next() -> None:
    node = Node()
    node.redis.failures.append(RedisConnectionError("gone"))
    node.redis.open.clear()
    async with running(node.outbox.run()):
        node.outbox.send("there", SESSION_1, b"lost")
        await node.written(1)
        node.outbox.send("there", SESSION_1, b"kept")
        node.redis.open.set()
        _, second = await node.written(2)
    assert node.outbox.dropped == 1
    assert unpacked(second[0][1]) == [(SESSION_1, b"kept")]


async def test_only_so_many_frames_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_QUEUED", 2)
    node = Node()
    node.redis.open.clear()
    async with running(node.outbox.run()):
        sent = [node.outbox.send("there" if n % 2 else "elsewhere", SESSION_1, b"%d" % n) for n in range(4)]
        assert sent == [True, True, False, False]
        await node.written(1)
        assert node.outbox.send("there", SESSION_1, b"there is room again")


async def test_only_so_many_bytes_wait_for_one_node_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_NODE_BYTES", 1_000)
    monkeypatch.setattr(outbox_module, "MAX_QUEUED_BYTES", 1_500)
    node = Node()
    assert node.outbox.send("there", SESSION_1, b"x" * 900)
    assert not node.outbox.send("there", SESSION_1, b"x" * 100)
    assert node.outbox.send("elsewhere", SESSION_1, b"x" * 400)
    assert not node.outbox.send("third", SESSION_1, b"x" * 200)
    async with running(node.outbox.run()):
        await node.written(1)
        assert node.outbox.send("there", SESSION_1, b"x" * 100)
        await node.written(2)
    assert node.outbox.queued == 0


async def test_a_packet_is_small_and_what_does_not_fit_follows_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_PACKET_BYTES", 1_000)
    node = Node()
    sent = [b"%d" % n * size for n, size in enumerate((10, 900, 300, 300, 2_000, 10))]
    for data in sent:
        node.outbox.send("there", SESSION_1, data)
    async with running(node.outbox.run()):
        await node.written(4)
    packets = [packet for write in node.redis.writes for _, packet in write]
    assert [item for packet in packets for item in unpacked(packet)] == [(SESSION_1, data) for data in sent]
    assert max(len(packet) for packet in packets if len(unpacked(packet)) > 1) < 1_100


async def test_a_slow_session_is_told_of_by_the_bus() -> None:
    sender = Node()
    async with receiving() as node, running(sender.outbox.run()):
        sender.outbox.tell_slow("here", SESSION_1, ROOM)
        ((_, packet),) = (await sender.written(1))[0]
        await node.redis.publish_here(packet)
        assert node.received.slow == [(SESSION_1, ROOM)]


# --- in ---


@asynccontextmanager
async def receiving() -> AsyncIterator[Node]:
    node = Node()
    async with running(node.inbox.run()) as task:
        await turns()
        yield node
        assert not task.done(), "the receiver has to go on whatever comes"


async def test_packets_and_notices_arrive_in_order() -> None:
    sender = Node()
    async with receiving() as node, running(sender.outbox.run()):
        sender.outbox.send("here", SESSION_1, b"one")
        sender.outbox.replace("here", SESSION_2)
        sender.outbox.replace("here", SESSION_1, by_backend=True)
        ((_, packet),) = (await sender.written(1))[0]
        await node.redis.publish_here(packet)
        await node.redis.publish_here(notice(b'{"room":{}}'))
        assert node.received.items == [(SESSION_1, b"one"), SESSION_2, SESSION_1]
        assert node.received.by_backend == [False, True]
        assert node.received.notices == [b'{"room":{}}']


async def packet_of(*items: Item) -> bytes:
    node = Node()
    async with running(node.outbox.run()):
        for item in items:
            if isinstance(item, str):
                node.outbox.replace("there", item)
            else:
                node.outbox.send("there", *item)
        ((_, packet),) = (await node.written(1))[0]
    return packet


async def test_broken_messages_do_not_stop_the_receiver() -> None:
    good = await packet_of((SESSION_1, b"payload"))
    broken = [
        b"",
        b"P",
        b"P\xff",
        b"N",
        b"Nonsense",
        b"X",
        b"\x00" * 40,
        *(good[:size] for size in range(1, len(good))),
    ]
    not_ascii = good.replace(SESSION_1.encode(), b"\xff" * SESSION_ID_BYTES)
    async with receiving() as node:
        for message in (*broken, not_ascii):
            await node.redis.publish_here(message)
        assert node.received.items == [], "nothing is taken from what is cut short"
        await node.redis.publish_here(good)
        assert node.received.items == [(SESSION_1, b"payload")]


async def test_kinds_of_a_newer_release_are_skipped() -> None:
    packet = bytearray(await packet_of((SESSION_1, b"??"), (SESSION_2, b"known")))
    packet[packet.index(b"F")] = ord("Z")
    async with receiving() as node:
        await node.redis.publish_here(bytes(packet))
        assert node.received.items == [(SESSION_2, b"known")]


# --- gaps and deafness ---


async def test_a_packet_that_is_missing_shows() -> None:
    packets = []
    sender = Node()
    async with running(sender.outbox.run()):
        for count in (1, 2, 3, 4):
            sender.outbox.send("here", SESSION_1, b"%d" % count)
            packets.append((await sender.written(count))[-1][0][1])
    async with receiving() as node:
        for number in (1, 2):  # the first that is heard of a sender may have any number
            await node.redis.publish_here(packets[number])
        assert (node.received.gaps, node.inbox.gaps) == (0, 0)
        await node.redis.publish_here(packets[0])
        assert node.inbox.gaps == 1
        await node.redis.publish_here(packets[3])
        assert (node.received.gaps, node.inbox.gaps) == (2, 2)


async def test_each_sender_and_each_start_of_it_counts_for_itself() -> None:
    async with receiving() as node:
        for _ in range(3):
            await node.redis.publish_here(await packet_of((SESSION_1, b"x")))
        assert node.inbox.gaps == 0


async def test_whatever_was_said_before_a_subscription_may_have_been_missed() -> None:
    async with receiving() as node:
        assert node.redis.subscription.channels == ["keepline:inbox:here"]
        await node.redis.subscribed()
        assert node.received.gaps == 1


async def test_a_node_hears_itself_or_is_deaf() -> None:
    async with receiving() as node:
        await node.redis.subscribed()
        assert node.inbox.health.silent, "to be subscribed is not to hear"
        async with running(node.outbox.run_prober()), running(node.outbox.run()):
            ((channel, probe),) = (await node.written(1))[0]
        assert channel == "keepline:inbox:here"
        await node.redis.publish_here(b"?here/another-start")
        deaf = [node.inbox.health.silent]
        await node.redis.publish_here(probe)
        deaf.append(node.inbox.health.silent)
        for seconds in (SILENT_SECONDS, 2.0):
            node.now += seconds
            deaf.append(node.inbox.health.silent)
        assert deaf == [True, False, False, True]
        assert node.inbox.health.silent_seconds == pytest.approx(2.0)


async def test_probing_goes_on_when_redis_is_away() -> None:
    node = Node()
    node.redis.failures.append(RedisConnectionError("gone"))
    async with running(node.outbox.run_prober()), running(node.outbox.run()):
        await node.written(2)
    assert node.outbox.dropped == 0


async def test_a_deaf_inbox_is_subscribed_anew() -> None:
    async with receiving() as node:
        await node.redis.subscribed()

        def nothing() -> None:
            node.now += PROBE_SECONDS

        for _ in range(round(SILENT_SECONDS / PROBE_SECONDS) + 1):
            node.redis.messages.put_nowait(nothing)
        await eventually(lambda: len(node.redis.subscription.channels) == 2, what="another subscription")
        await node.redis.subscribed()
        assert node.received.gaps == 2


async def test_a_node_that_has_stalled_reads_what_came_meanwhile() -> None:
    async with receiving() as node:
        await node.redis.subscribed()

        def stalled() -> None:
            node.now += 60.0

        node.redis.messages.put_nowait(stalled)
        await node.redis.publish_here(await packet_of((SESSION_1, b"x")))
        assert node.received.items == [(SESSION_1, b"x")]
        assert len(node.redis.subscription.channels) == 1
        for _ in range(
            round(SILENT_SECONDS / PROBE_SECONDS) + 1
        ):  # but it is silent for as long as any other
            node.redis.messages.put_nowait(lambda: setattr(node, "now", node.now + PROBE_SECONDS))
        await eventually(lambda: len(node.redis.subscription.channels) == 2, what="another subscription")


async def test_for_some_seconds_after_a_loss_redis_may_not_have_all_rooms_yet() -> None:
    async with receiving() as node:
        await node.redis.subscribed()
        told = [node.inbox.health.just_lost]
        node.redis.messages.put_nowait(RedisConnectionError("gone"))
        await eventually(lambda: len(node.redis.subscription.channels) == 2, what="another subscription")
        for seconds in (0.0, PUT_BACK_SECONDS - 0.1, 0.1):
            node.now += seconds
            told.append(node.inbox.health.just_lost)
        assert told == [False, True, True, False]


async def test_a_subscription_that_is_lost_is_made_anew() -> None:
    async with receiving() as node:
        node.redis.messages.put_nowait(RedisConnectionError("gone"))
        await eventually(lambda: len(node.redis.subscription.channels) == 2, what="another subscription")
        await node.redis.publish_here(await packet_of((SESSION_1, b"x")))
        assert node.received.items == [(SESSION_1, b"x")]


SESSION = st.text(alphabet="0123456789abcdef", min_size=SESSION_ID_BYTES, max_size=SESSION_ID_BYTES)
ITEMS = st.lists(SESSION | st.tuples(SESSION, st.binary(max_size=200)), min_size=1, max_size=20)


@given(ITEMS, st.text(alphabet="abc.-_", min_size=1, max_size=64))
def test_unpacking_is_the_inverse_of_packing(items: list[Item], name: str) -> None:
    sending = Outbox(Channels(cast(Client, None), 16), Redis(), name)
    for item in items:
        if isinstance(item, str):
            sending.replace("there", item)
        else:
            sending.send("there", *item)
    assert unpacked(pack(name, 2**64 - 1, sending._queues["there"].items)) == items


@given(st.binary(max_size=100).map(lambda data: b"P" + data))
def test_whatever_comes_is_survived(data: bytes) -> None:
    unpacked(data)

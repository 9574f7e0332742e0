import asyncio

import pytest

from keepline.client.errors import ConnectionClosed
from keepline.client.event_queue import EventQueue
from keepline.client.events import Ended, EventsLost, SignalReceived, Typing


async def test_events_come_in_order_and_then_the_end() -> None:
    queue = EventQueue(limit=10)
    queue.put(SignalReceived(1))
    queue.put(SignalReceived(2))
    queue.close()
    queue.put(SignalReceived(3))
    assert [await queue.get() for _ in range(3)] == [SignalReceived(1), SignalReceived(2), None]


async def test_at_the_limit_the_newest_are_dropped_and_counted() -> None:
    queue = EventQueue(limit=2)
    for n in range(5):
        queue.put(SignalReceived(n))
    assert [await queue.get() for _ in range(3)] == [SignalReceived(0), SignalReceived(1), EventsLost(3)]
    queue.put(Typing())
    assert await queue.get() == Typing()


async def test_the_end_of_the_call_is_never_dropped() -> None:
    queue = EventQueue(limit=1)
    queue.put(Typing())
    queue.put(Typing())
    queue.put(Ended("hangup"))
    queue.close()
    assert [await queue.get() for _ in range(4)] == [Typing(), EventsLost(1), Ended("hangup"), None]


async def test_a_final_error_comes_after_what_waits() -> None:
    queue = EventQueue(limit=2)
    queue.put(Typing())
    queue.close(ConnectionClosed(4409, "replaced"))
    queue.close()
    assert await queue.get() == Typing()
    with pytest.raises(ConnectionClosed):
        await queue.get()


async def test_a_reader_that_waits_is_woken() -> None:
    queue = EventQueue(limit=2)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        reader = group.create_task(queue.get())
        group.create_task(asyncio.to_thread(lambda: None)).add_done_callback(lambda _: queue.put(Typing()))
    assert reader.result() == Typing()

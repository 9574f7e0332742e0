"""`Call.send`: done when the peer has it, sent again when it may not have arrived, refused when it never will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keepline.client import (
    Call,
    CallEnded,
    ConnectionClosed,
    EventsLost,
    Keepline,
    PeerChanged,
    Rejoined,
    SignalLost,
    SignalReceived,
)
from tests.helpers.waiting import eventually
from tests.unit.client.scripted_node import (
    ROOM,
    Frame,
    ScriptedNode,
    Visit,
    membership,
    next_events,
    quick,
    scripted_node,
    together,
    welcomed,
)


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as running:
        yield running


@pytest.fixture
async def client(node: ScriptedNode) -> AsyncIterator[Keepline]:
    client = Keepline(node.url, "token", options=quick(events_waiting=3))
    yield client
    await client.close()


async def meet(client: Keepline, node: ScriptedNode, stream: str = "r1.peer.1") -> tuple[Call, Visit, Frame]:
    """A call whose peer has an SDK: with the first presence note."""
    visit, _ = await welcomed(client, node)
    call, _ = await together(client.join(ROOM), visit.admit("joined"))
    note = await visit.any()
    assert note["data"] == {"here": None}
    await signal(visit, 1, {"here": note["stream"]}, stream)
    return call, visit, note


async def signal(visit: Visit, n: int, data: Any, stream: str = "r1.peer.1") -> None:
    await visit.send("signal", room=ROOM, stream=stream, n=n, data=data)


async def test_it_is_done_when_the_peer_has_it(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    one, two = asyncio.ensure_future(call.send(1)), asyncio.ensure_future(call.send(2))
    frames = [await visit.read("signal") for _ in range(2)]
    assert [frame["data"] for frame in frames] == [1, 2]
    await visit.send("ack", room=ROOM, stream=frames[0]["stream"], n=frames[0]["n"])
    await one
    assert not two.done()
    await visit.send("ack", room=ROOM, stream=frames[1]["stream"], n=frames[1]["n"])
    await two


async def test_what_came_is_acknowledged_and_notes_are_no_events(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit, _ = await meet(client, node)
    await signal(visit, 2, "two")
    await signal(visit, 2, "two")
    ack = await visit.read("ack")
    assert (ack["room"], ack["stream"], ack["n"]) == (ROOM, "r1.peer.1", 2)
    assert await next_events(call, 2) == [PeerChanged("joined"), SignalReceived("two")]


async def test_what_was_on_its_way_is_sent_again(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    sent = call.send("survives")
    first = await visit.read("signal")
    visit.kill()
    visit = await node.visit()
    await visit.welcome(resumed=True, rooms=[membership()])
    again = await visit.read("signal")
    assert again == first
    await visit.send("ack", room=ROOM, stream=again["stream"], n=again["n"])
    await sent


async def test_it_is_sent_again_after_a_time_out(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    call.send("lost on its way")
    first = await visit.read("signal")
    await visit.send("ack", room=ROOM, stream=first["stream"], n=first["n"] - 1)
    assert await visit.read("signal") == first


async def test_what_nobody_reads_is_not_acknowledged(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    for n in range(2, 8):
        await signal(visit, n, n)
    assert (await visit.read("ack"))["n"] == 3, "there is room for two beside the peer's coming"
    assert await next_events(call, 3) == [PeerChanged("joined"), SignalReceived(2), SignalReceived(3)]
    for n in range(4, 6):
        await signal(visit, n, n)
    assert (await visit.read("ack"))["n"] == 5
    events = await next_events(call, 2)
    assert events == [SignalReceived(4), SignalReceived(5)]
    assert not any(isinstance(event, EventsLost) for event in events)


async def test_the_peers_page_is_gone(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    lost = call.send("for the old page")
    await visit.read("signal")
    await signal(visit, 1, {"here": None}, "r1.new.1")
    with pytest.raises(SignalLost) as refused:
        await lost
    assert refused.value.code == "peer_gone"
    call.send("for the new page")
    assert (await visit.read("signal"))["n"] == 2, "the new stream's presence note came before it"


async def test_the_room_ends(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    sent = call.send("too late")
    await visit.send("ended", room=ROOM, reason="hangup")
    with pytest.raises(CallEnded, match="hangup"):
        await sent
    with pytest.raises(CallEnded, match="hangup"):
        call.send("later still")


async def test_the_client_closes(client: Keepline, node: ScriptedNode) -> None:
    call, _, _ = await meet(client, node)
    sent = call.send("too late")
    await client.close()
    with pytest.raises(ConnectionClosed):
        await sent


async def test_it_waits_for_a_peer_that_is_away(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    await visit.send("peer", room=ROOM, state="reconnecting", grace_ms=10_000)
    assert len(await next_events(call, 2)) == 2
    sent = call.send("waits")
    await visit.send("peer", room=ROOM, state="reconnected")
    await signal(visit, 2, {"here": None})
    frame = await visit.read("signal")
    assert frame["data"] == "waits"
    await visit.send("ack", room=ROOM, stream=frame["stream"], n=frame["n"])
    await sent


async def test_a_wait_that_is_given_up_does_not_take_the_signal_back(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit, _ = await meet(client, node)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await call.send("goes on")
    frame = await visit.read("signal")
    assert frame["data"] == "goes on"
    await visit.send("ack", room=ROOM, stream=frame["stream"], n=frame["n"])
    second = call.send("next")
    frame = await visit.read("signal")
    await visit.send("ack", room=ROOM, stream=frame["stream"], n=frame["n"])
    await second


async def test_a_call_that_is_over_leaves_no_task(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    await visit.send("ended", room=ROOM, reason="hangup")
    await eventually(lambda: call.ended)
    await eventually(lambda: "keepline-signals" not in {task.get_name() for task in asyncio.all_tasks()})


async def test_a_rejoin_is_told_before_what_came_after_it(client: Keepline, node: ScriptedNode) -> None:
    call, visit, _ = await meet(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.welcome(resumed=True, rooms=[membership()])
    await signal(visit, 2, "after")
    assert await next_events(call, 3) == [
        PeerChanged("joined"),
        Rejoined(resumed=True),
        SignalReceived("after"),
    ]

"""`Call.chat`: a line is sent again, with its key, until it is known what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keepline.client import Call, CallEnded, ConnectionClosed, ConnectionLost, Keepline, RequestFailed
from tests.unit.client.scripted_node import (
    ALICE,
    ROOM,
    ScriptedNode,
    Visit,
    Waits,
    message,
    quick,
    scripted_node,
    together,
    welcomed,
)

LIMITS = {
    "frames_per_second": 50,
    "frames_burst": 200,
    "frame_bytes": 65536,
    "chat_length": 500,
    "chat_key": 64,
    "ping_ms": 8000,
}
OVER = {"room": ROOM, "code": "room_ended", "message": "over", "reason": "grace_expired"}


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as running:
        yield running


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(node: ScriptedNode, waits: Waits) -> AsyncIterator[Keepline]:
    client = Keepline(node.url, "token", options=quick(waits, chats_waiting=2))
    yield client
    await client.close()


async def join(client: Keepline, node: ScriptedNode, **welcome: Any) -> tuple[Call, Visit]:
    visit, _ = await welcomed(client, node, **{"limits": LIMITS, **welcome})
    call, _ = await together(client.join(ROOM), visit.admit("joined"))
    return call, visit


async def back(node: ScriptedNode, **welcome: Any) -> Visit:
    visit = await node.visit()
    await visit.welcome(**{"limits": LIMITS, **welcome})
    return visit


async def test_a_line_without_answer_is_asked_for_again_by_the_same_key(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("once"))
    first = await visit.read("chat")
    assert 1 <= len(first["key"]) <= 64
    for _ in range(3):
        visit.kill()
        visit = await back(node)
        await visit.admit("joined")
        again = await visit.read("chat")
        assert (again["text"], again["key"]) == ("once", first["key"])
    await visit.answer(again, "ok", message=message(7, "once", ALICE))
    assert (await chatting).seq == 7


async def test_each_line_has_a_key_of_its_own_and_waits_for_the_one_before(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    lines = [asyncio.create_task(call.chat(text)) for text in ("one", "two")]
    one = await visit.read("chat")
    visit.kill()
    visit = await back(node)
    await visit.admit("joined")
    requests = [await visit.read("chat")]
    await visit.answer(requests[0], "ok", message=message(1, "one", ALICE))
    requests.append(await visit.read("chat"))
    await visit.answer(requests[1], "ok", message=message(2, "two", ALICE))
    assert [request["text"] for request in requests] == ["one", "two"]
    assert requests[0]["key"] == one["key"] != requests[1]["key"]
    assert [line.seq for line in await asyncio.gather(*lines)] == [1, 2]


async def test_an_app_may_give_the_key(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("hi", key="mine"))
    request = await visit.read("chat")
    assert request["key"] == "mine"
    await visit.answer(request, "ok", message=message(1, "hi", ALICE))
    await chatting
    with pytest.raises(RequestFailed, match="bad_request"):
        await call.chat("hi", key="x" * 65)


async def test_a_refusal_that_passes_is_waited_for(
    client: Keepline, node: ScriptedNode, waits: Waits
) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("hi"))
    keys = set()
    for code in ("unavailable", "rate_limited"):
        request = await visit.read("chat")
        keys.add(request["key"])
        await visit.answer(request, "error", room=ROOM, code=code, message="later", retry_after_ms=2_000)
    request = await visit.read("chat")
    await visit.answer(request, "ok", message=message(1, "hi", ALICE))
    await chatting
    assert keys == {request["key"]}
    assert waits.asked[:2] == [2.25, 2.5]


async def test_a_refusal_that_stays_is_told(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("hi"))
    await visit.answer(await visit.read("chat"), "error", room=ROOM, code="bad_request", message="no")
    with pytest.raises(RequestFailed, match="bad_request"):
        await chatting


async def ended_meanwhile(client: Keepline, node: ScriptedNode) -> tuple[asyncio.Task[Any], Visit, Any]:
    """A line was sent, and the room ended before its answer: the line is asked for once more."""
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("last words"))
    sent = await visit.read("chat")
    visit.kill()
    visit = await back(node)
    await visit.answer(await visit.read("join"), "error", **OVER)
    again = await visit.read("chat")
    assert again["key"] == sent["key"]
    return chatting, visit, again


async def test_a_line_that_was_stored_before_the_end_is_found_after_it(
    client: Keepline, node: ScriptedNode
) -> None:
    chatting, visit, request = await ended_meanwhile(client, node)
    await visit.answer(request, "ok", message=message(3, "last words", ALICE))
    assert (await chatting).seq == 3


async def test_a_line_that_was_not_stored_before_the_end_is_known_not_to_be(
    client: Keepline, node: ScriptedNode
) -> None:
    chatting, visit, request = await ended_meanwhile(client, node)
    await visit.answer(request, "error", **OVER)
    with pytest.raises(CallEnded, match="grace_expired"):
        await chatting


async def test_a_room_that_nobody_remembers_leaves_it_open(client: Keepline, node: ScriptedNode) -> None:
    chatting, visit, request = await ended_meanwhile(client, node)
    await visit.answer(request, "error", room=ROOM, code="room_not_found", message="gone")
    with pytest.raises(ConnectionLost, match="it is unknown whether"):
        await chatting


async def test_a_call_that_is_over_takes_no_line(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    await visit.send("ended", room=ROOM, reason="hangup")
    async for _ in call.events():
        pass
    with pytest.raises(CallEnded):
        await call.chat("late")


async def test_the_end_of_the_client_ends_the_wait(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("hi"))
    await visit.read("chat")
    await client.close()
    with pytest.raises(ConnectionClosed):
        await chatting


async def test_an_older_node_cannot_answer_for_a_key(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("hi"))
    await visit.read("chat")
    visit.kill()
    visit = await back(node, limits={name: value for name, value in LIMITS.items() if name != "chat_key"})
    await visit.admit("joined")
    with pytest.raises(ConnectionLost, match="does not support keys"):
        await chatting


async def test_too_many_lines_at_once_are_refused(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    waiting = [asyncio.create_task(call.chat(f"{number}")) for number in range(2)]
    await visit.read("chat")
    with pytest.raises(RequestFailed, match="queue_full"):
        await call.chat("one too many")
    for task in waiting:
        task.cancel()

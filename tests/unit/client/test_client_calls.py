"""The SDK against a scripted node, while the connection lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keepline.client import (
    Call,
    CallEnded,
    ChatReceived,
    Ended,
    IceServer,
    IceServersChanged,
    Keepline,
    Message,
    PeerChanged,
    ProtocolError,
    RequestFailed,
    RequestTimedOut,
    SignalReceived,
    SignalRefused,
)
from tests.unit.client.scripted_node import (
    ALICE,
    BOB,
    ROOM,
    ScriptedNode,
    Visit,
    membership,
    message,
    next_events,
    quick,
    scripted_node,
    together,
    welcomed,
)

OTHER_ROOM = "0b5c1f2a-8f0e-4a39-8a54-0c2f7a9e7f02"


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as running:
        yield running


@pytest.fixture
async def client(node: ScriptedNode) -> AsyncIterator[Keepline]:
    client = Keepline(node.url, "token", options=quick())
    yield client
    await client.close()


@pytest.fixture
async def visit(node: ScriptedNode, client: Keepline) -> Visit:
    visit, _ = await welcomed(client, node)
    return visit


@pytest.fixture
async def call(client: Keepline, visit: Visit) -> Call:
    call, _ = await together(client.join(ROOM), visit.admit())
    return call


async def test_hello_carries_the_token_and_the_welcome_is_kept(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token-1", room_hint=ROOM, options=quick())
    visit, hello = await welcomed(client, node, rooms=[membership("away")])
    assert hello == {"type": "hello", "token": "token-1"}
    assert visit.path == f"/v1?room={ROOM}"
    assert (client.user, client.node) == (ALICE, "node-1")
    assert client.ice_servers == (IceServer(("stun:stun.example.org",)),)
    assert [(held.room.room_id, held.peer) for held in client.rooms] == [(ROOM, "away")]
    await client.close()
    assert await visit.gone() == 1000


async def test_join_shows_the_room(client: Keepline, visit: Visit) -> None:
    call, _ = await together(client.join(ROOM), visit.admit("joined"))
    assert (call.room_id, call.side, call.polite, call.peer) == (ROOM, 1, False, "joined")
    assert (call.room.user_1, call.room.user_2, call.room.duration_seconds) == (ALICE, BOB, 600)
    assert call.ended is None
    assert await next_events(call, 1) == [PeerChanged("joined")]


async def test_join_again_is_the_same_call(client: Keepline, call: Call) -> None:
    again = await client.join(ROOM)
    assert again.room is call.room


async def test_a_refused_join_says_why(client: Keepline, visit: Visit) -> None:
    async def refuse() -> None:
        request = await visit.read("join")
        await visit.answer(request, "error", room=ROOM, code="unavailable", message="no", retry_after_ms=1500)

    joining = asyncio.ensure_future(client.join(ROOM))
    await refuse()
    with pytest.raises(RequestFailed) as failure:
        await joining
    assert (failure.value.code, failure.value.retry_after) == ("unavailable", 1.5)


async def test_events_right_behind_the_join_are_not_missed(client: Keepline, visit: Visit) -> None:
    async def admit() -> None:
        await visit.admit(peer="absent")
        await visit.send("peer", room=ROOM, state="joined")
        await visit.send("signal", room=ROOM, data={"app": "hi"})

    call, _ = await together(client.join(ROOM), admit())
    assert await next_events(call, 2) == [PeerChanged("joined"), SignalReceived({"app": "hi"})]


async def test_signals_are_numbered_and_in_order(call: Call, visit: Visit) -> None:
    call.signal(description={"type": "offer", "sdp": "v=0"})
    call.signal(candidate={"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0})
    call.send(["anything", None])
    await visit.send("peer", room=ROOM, state="joined")
    frames = [await visit.read("signal") for _ in range(3)]
    assert [frame["n"] for frame in frames] == [2, 3, 4], "the presence note has the first number"
    assert len({frame["stream"] for frame in frames}) == 1
    assert {frame["room"] for frame in frames} == {ROOM}
    assert [frame["data"] for frame in frames] == [
        {"description": {"type": "offer", "sdp": "v=0"}},
        {"candidate": {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}},
        ["anything", None],
    ]


async def test_signals_of_many_tasks_keep_their_numbers_in_order(call: Call, visit: Visit) -> None:
    await visit.send("peer", room=ROOM, state="joined")
    tasks = [asyncio.ensure_future(call.send(i)) for i in range(50)]
    frames = [await visit.read("signal") for _ in range(50)]
    assert [(frame["n"], frame["data"]) for frame in frames] == [(i + 2, i) for i in range(50)]
    await visit.send("ack", room=ROOM, stream=frames[0]["stream"], n=51)
    await asyncio.gather(*tasks)


async def test_a_signal_has_one_kind(call: Call) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        call.signal(description={}, app={})
    with pytest.raises(ValueError, match="exactly one"):
        call.signal()


async def test_what_is_no_json_is_refused_and_blocks_nothing(call: Call, visit: Visit) -> None:
    with pytest.raises(TypeError):
        call.send({1, 2})
    call.send("fine")
    await visit.send("peer", room=ROOM, state="joined")
    assert (await visit.read("signal"))["n"] == 2


async def test_chat_returns_what_was_stored(call: Call, visit: Visit) -> None:
    async def store() -> dict[str, Any]:
        request = await visit.read("chat")
        await visit.answer(request, "ok", message=message(1, request["text"], ALICE))
        return request

    stored, request = await together(call.chat("Hello!"), store())
    assert (request["room"], request["text"]) == (ROOM, "Hello!")
    assert (stored.seq, stored.sender, stored.text) == (1, ALICE, "Hello!")
    assert call.room.messages == (stored,)


async def test_chat_of_the_peer(call: Call, visit: Visit) -> None:
    await visit.send("chat", room=ROOM, message=message(1, "Hi!"), unknown="ignored")
    (event,) = await next_events(call, 1)
    assert isinstance(event, ChatReceived)
    assert (event.message.sender, event.message.text) == (BOB, "Hi!")


@pytest.mark.parametrize(
    ("method", "kind", "fields"),
    [
        ("request_video", "mode", {"action": "request"}),
        ("accept_video", "mode", {"action": "accept"}),
        ("decline_video", "mode", {"action": "decline"}),
        ("leave", "leave", {}),
        ("end", "end", {}),
    ],
)
async def test_requests(call: Call, visit: Visit, method: str, kind: str, fields: dict[str, str]) -> None:
    async def agree() -> dict[str, Any]:
        request = await visit.read(kind)
        await visit.answer(request, "ok")
        return request

    _, request = await together(getattr(call, method)(), agree())
    assert request == {"type": kind, "id": request["id"], "room": ROOM, **fields}


async def test_typing_has_no_answer(call: Call, visit: Visit) -> None:
    await call.typing()
    assert await visit.read("typing") == {"type": "typing", "room": ROOM}


async def test_answers_find_their_requests_in_any_order(call: Call, visit: Visit) -> None:
    async def store_backwards() -> None:
        requests = [await visit.read("chat"), await visit.read("chat")]
        for seq, request in ((2, requests[1]), (1, requests[0])):
            await visit.answer(request, "ok", message=message(seq, request["text"], ALICE))

    both, _ = await together(_chat_twice(call), store_backwards())
    assert [line.text for line in both] == ["first", "second"]
    assert [line.seq for line in call.room.messages] == [1, 2]


async def _chat_twice(call: Call) -> tuple[Message, Message]:
    return await asyncio.gather(call.chat("first"), call.chat("second"))


async def test_the_end_by_the_peer_ends_everything(client: Keepline, call: Call, visit: Visit) -> None:
    await visit.send("ended", room=ROOM, reason="hangup")
    assert await next_events(call, 2) == [Ended("hangup")]
    assert call.ended == "hangup"
    with pytest.raises(CallEnded):
        call.send("late")
    with pytest.raises(CallEnded):
        await call.chat("late")
    await call.end()
    again, _ = await together(client.join(ROOM), visit.admit())
    assert again.ended is None


async def test_hanging_up_a_call_that_has_just_ended_is_fine(call: Call, visit: Visit) -> None:
    async def refuse() -> None:
        request = await visit.read("end")
        await visit.answer(request, "error", room=ROOM, code="room_ended", message="over")

    await together(call.end(), refuse())
    assert call.ended == "hangup"


async def test_a_call_can_be_reported_also_when_it_is_over(
    client: Keepline, call: Call, visit: Visit
) -> None:
    async def take(room: str) -> None:
        request = await visit.read("report")
        assert (request["room"], request["reason"]) == (room, "rude")
        await visit.answer(request, "ok")

    async def refuse() -> None:
        request = await visit.read("report")
        refusal = {"code": "rate_limited", "message": "too many", "retry_after_ms": 1500}
        await visit.answer(request, "error", room=ROOM, **refusal)

    await together(call.report("rude"), take(ROOM))
    await visit.send("ended", room=ROOM, reason="hangup")
    assert await next_events(call, 2) == [Ended("hangup")]
    await together(call.report("rude"), take(ROOM))
    await together(client.report(OTHER_ROOM, "rude"), take(OTHER_ROOM))
    refused = asyncio.ensure_future(call.report("rude"))
    await refuse()
    with pytest.raises(RequestFailed) as failure:
        await refused
    assert (failure.value.code, failure.value.retry_after) == ("rate_limited", 1.5)


async def test_leaving_ends_the_events(call: Call, visit: Visit) -> None:
    async def agree() -> None:
        await visit.answer(await visit.read("leave"), "ok")

    events, _ = await together(next_events(call, 1), together(call.leave(), agree()))
    assert events == []
    assert call.ended == "left"


async def test_new_turn_credentials_reach_the_call(client: Keepline, call: Call, visit: Visit) -> None:
    server = {"urls": "turn:turn.example.org", "username": "u", "credential": "c"}
    await visit.send("ice", ice_servers=[server])
    expected = (IceServer(("turn:turn.example.org",), "u", "c"),)
    assert await next_events(call, 1) == [IceServersChanged(expected)]
    assert client.ice_servers == expected


async def test_a_refused_signal_is_told(call: Call, visit: Visit) -> None:
    await visit.send("error", room=ROOM, code="not_a_member", message="join first")
    await visit.send("error", code="rate_limited", message="slow down", retry_after_ms=250)
    assert await next_events(call, 2) == [
        SignalRefused("not_a_member", "join first"),
        SignalRefused("rate_limited", "slow down", 0.25),
    ]


@pytest.mark.parametrize(
    "junk",
    ["not json", "[]", '{"type": 7}', f'{{"type": "peer", "room": "{ROOM}"}}', '{"type": "from_the_future"}'],
)
async def test_what_cannot_be_read_is_ignored(call: Call, visit: Visit, junk: str) -> None:
    await visit.send_text(junk)
    await visit.send("typing", room=OTHER_ROOM)
    await visit.send("signal", room=ROOM, data=1)
    assert await next_events(call, 1) == [SignalReceived(1)]


async def test_an_answer_that_cannot_be_read_fails_its_request(client: Keepline, visit: Visit) -> None:
    async def answer_badly() -> None:
        await visit.answer(await visit.read("join"), "joined", room="?")

    joining = asyncio.ensure_future(client.join(ROOM))
    await answer_badly()
    with pytest.raises(ProtocolError):
        await joining


async def test_a_request_without_answer_times_out(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=quick(request_timeout=0.05))
    visit, _ = await welcomed(client, node)
    with pytest.raises(RequestTimedOut):
        await client.join(ROOM)
    late = await visit.read("join")
    await visit.answer(late, "joined", **membership())
    joining = asyncio.ensure_future(client.join(ROOM))
    await visit.admit()
    assert (await joining).room_id == ROOM
    await client.close()

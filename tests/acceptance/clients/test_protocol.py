"""The client protocol, spoken by bare WebSocket clients to a whole cluster."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.frames import Opcode

from tests.acceptance.clients.bare_client import BareClient, Frame
from tests.acceptance.clients.raw_client import websocket_frame
from tests.acceptance.clients.transcript import Names, example_call
from tests.acceptance.harness import PLACEMENTS, Call, Harness, Placement
from tests.helpers.cluster import Cluster, HttpFailed

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIGNALS = 1_000
NARROW = 65_536


@pytest_asyncio.fixture(loop_scope="session", params=PLACEMENTS)
async def harness(request: pytest.FixtureRequest, patient_cluster: Cluster) -> AsyncIterator[Harness]:
    nodes: Placement = request.param
    async with Harness(patient_cluster, nodes) as harness:
        yield harness


async def test_the_example_call_of_the_document_happens_as_it_is_printed(harness: Harness) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    users = {"A": alice, "B": bob}
    nodes = {"A": iter([harness.nodes[0]]), "B": iter([harness.nodes[1], 0])}
    clients: dict[str, BareClient] = {}
    room = (await harness.cluster.open_room(alice, bob, duration_seconds=600))["room_id"]
    names = Names(**{"7d3c": room, "2f1c": str(alice), "9a0e": str(bob)})

    for line in example_call():
        match line.kind:
            case "send":
                if line.frame["type"] == "hello":
                    clients[line.who] = await harness.connect(next(nodes[line.who]), room=room)
                    line.frame["token"] = harness.cluster.token(users[line.who])
                await clients[line.who].send(**_as_arguments(names.real(line.frame)))
            case "receive" if (
                line.frame["type"] != "ending"
            ):  # nine and a half minutes away; see test_room_ends
                frame = await clients[line.who].receive()
                assert list(names.differences(line.frame, frame)) == []
            case "story" if "Bob's node is killed" in line.text:
                clients["B"].cut()
    await harness.stored(room, status="ended", ended_reason="hangup", user_1_connected=False)


def _as_arguments(frame: Frame) -> dict[str, Any]:
    return {"kind" if name == "type" else name: value for name, value in frame.items()}


async def test_a_member_is_told_all_about_its_room(harness: Harness) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    opened = await harness.cluster.open_room(alice, bob, duration_seconds=90, node=1)
    room = opened["room_id"]
    assert opened == opened | {
        "user_1": str(alice),
        "user_2": str(bob),
        "chat_mode": "video",
        "status": "active",
        "duration_seconds": 90,
        "grace_period_expires": None,
        "user_1_connected": False,
        "user_2_connected": False,
        "messages": [],
        "version": 1,
        "ended_reason": None,
        "ended_at": None,
    }

    first = await harness.login(bob, harness.nodes[1])
    assert first.welcome["resumed"] is False
    assert first.welcome["rooms"] == [{"room": opened, "side": 2, "polite": True, "peer": "absent"}]
    joined = await first.client.ask("join", "joined", room=room)
    assert (joined["side"], joined["polite"], joined["peer"]) == (2, True, "absent")
    assert joined["room"] == opened | {"user_2_connected": True, "version": 2}

    second = await harness.login(alice, harness.nodes[0])
    joined = await second.client.ask("join", "joined", room=room)
    assert (joined["side"], joined["polite"], joined["peer"]) == (1, False, "joined")
    started = joined["room"]["started_at"]
    assert started > opened["started_at"]
    assert joined["room"] == opened | {
        "user_1_connected": True,
        "user_2_connected": True,
        "version": 3,
        "started_at": started,
    }
    await first.client.expect("peer", room=room, state="joined")
    assert await harness.stored(room) == joined["room"]

    again = await second.client.ask("join", "joined", room=room)
    assert again["room"] == joined["room"], "joining a room that is held changes nothing"
    await Call(room, second, first).goes_on()


async def test_a_client_learns_its_limits_and_may_ping(harness: Harness) -> None:
    member = await harness.login(uuid.uuid4(), harness.nodes[0])
    told = {"frame_bytes": 65_536, "chat_length": 500, "chat_key": 64, "ping_ms": 8_000}
    assert member.welcome["limits"] == told | {"frames_per_second": 5_000.0, "frames_burst": 5_000}
    for request_id in (8, "8", 0.5):
        await member.client.send("ping", id=request_id)
        assert await member.client.receive() == {"type": "pong", "id": request_id}


async def test_a_thousand_signals_each_way_arrive_unchanged_and_in_order(harness: Harness) -> None:
    call = await harness.call()
    alice, bob = call.clients
    frames = [list(_crowd(call.room, stream)) for stream in ("alices", "bobs")]

    async def send_all(client: BareClient, mine: list[Frame]) -> None:
        for number, frame in enumerate(mine):
            await client.send(**_as_arguments(frame), id=f"never forwarded {number}")

    async def receive_all(client: BareClient, expected: list[Frame]) -> list[Frame]:
        return [await client.receive() for _ in expected]

    _, _, at_alice, at_bob = await asyncio.gather(
        send_all(alice, frames[0]),
        send_all(bob, frames[1]),
        receive_all(alice, frames[1]),
        receive_all(bob, frames[0]),
    )
    assert at_bob == frames[0]
    assert at_alice == frames[1]
    await call.goes_on()


def _crowd(room: str, stream: str) -> list[Frame]:
    """A thousand signals of all kinds, with acknowledgements and typing among them."""
    frames: list[Frame] = []
    for n in range(1, SIGNALS + 1):
        data: dict[str, Any] = {
            "candidate": {"candidate": f"candidate:{n} 1 udp", "sdpMid": "0"},
            "…": [None, n / 4, {}],
        }
        frames.append({"type": "signal", "room": room, "stream": stream, "n": n, "data": data})
        if n % 50 == 0:
            frames.append({"type": "ack", "room": room, "stream": f"not {stream}", "n": n})
            frames.append({"type": "typing", "room": room})
    return frames


@pytest.mark.parametrize(
    "data",
    [
        '{"n": 1.0, "big": 123456789012345678901234567890, "e": 1E2, "twice": 1, "twice": 2}',
        '"caf\\u00e9 \\ud83d\\ude00 \\/ \\u0000"',
        "null",
        "[[], {}, false, -0.0]",
    ],
)
async def test_the_data_of_a_signal_arrives_byte_for_byte(harness: Harness, data: str) -> None:
    call = await harness.call()
    await call.alice.client.send_text(
        f'{{"type": "signal", "room": "{call.room}", "id": "x", "data": {data}}}'
    )
    text = await call.bob.client.websocket.recv(decode=True)
    assert data in text
    assert json.loads(text) == {"type": "signal", "room": call.room, "data": json.loads(data)}


async def test_a_signal_to_a_peer_that_is_not_there_is_dropped_in_silence(harness: Harness) -> None:
    call = await harness.call()
    alice, bob = call.clients
    await bob.ask("leave", "ok", room=call.room)
    await alice.expect("peer", room=call.room, state="left")
    await alice.send("signal", room=call.room, data={"app": "lost"})
    await bob.ask("join", "joined", room=call.room)
    await alice.expect("peer", room=call.room, state="joined")
    await call.goes_on()


async def test_both_chat_and_the_room_remembers(harness: Harness) -> None:
    call = await harness.call()
    written = []
    for number, text in enumerate(["Hello!", "Grüß dich 👋", "<b>&amp;</b>", "x" * 500], start=1):
        writer, reader = (call.alice, call.bob) if number % 2 else (call.bob, call.alice)
        message = (await writer.client.ask("chat", "ok", room=call.room, text=text))["message"]
        assert message == {"seq": number, "from": str(writer.user), "text": text, "at": message["at"]}
        await reader.client.expect("chat", room=call.room, message=message)
        written.append(message)

    rejoined = await call.alice.client.ask("join", "joined", room=call.room)
    assert rejoined["room"]["messages"] == written
    newcomer = await harness.login(call.bob.user, 1)
    assert [held["room"]["messages"] for held in newcomer.welcome["rooms"]] == [written]
    assert (await harness.stored(call.room))["messages"] == written


async def test_all_of_a_long_chat_is_there_for_who_comes_back(harness: Harness) -> None:
    call = await harness.call()
    alice, bob = call.clients
    text = "🙂" * 500

    async def write_all() -> None:
        for number in range(1_001):
            await alice.send("chat", id=str(number), room=call.room, text=text)

    async def answers(client: BareClient, kind: str) -> list[int]:
        return [(await client.expect(kind))["message"]["seq"] for _ in range(1_001)]

    _, stored, read = await asyncio.gather(write_all(), answers(alice, "ok"), answers(bob, "chat"))
    assert stored == read == list(range(1, 1_002))
    # A line that is slow: none of it has been read when both snapshots are sent, each twice what may wait.
    again = await harness.connect_raw(1, receive_buffer_bytes=NARROW)
    await again.handshake()
    await again.send({"type": "hello", "token": harness.cluster.token(call.bob.user)})
    await again.send({"type": "join", "room": call.room})
    await alice.expect("peer", room=call.room, state="reconnected")
    await harness.stored(call.room)
    await again.write(websocket_frame(Opcode.CLOSE, b""))
    frames, code = await again.rest()
    assert ([frame["type"] for frame in frames], code) == (["welcome", "joined"], 1005)
    welcome, joined = frames
    for messages in (welcome["rooms"][0]["room"]["messages"], joined["room"]["messages"]):
        assert [message["seq"] for message in messages] == list(range(2, 1_002))
        assert {message["text"] for message in messages} == {text}


async def test_who_leaves_has_left_and_may_come_again(harness: Harness) -> None:
    call = await harness.call()
    alice, bob = call.clients
    await bob.ask("leave", "ok", room=call.room)
    left = await alice.expect("peer", room=call.room, state="left")
    assert left["grace_ms"] == 10_000
    away = await harness.stored(
        call.room, status="grace_period", user_1_connected=True, user_2_connected=False
    )
    assert away["grace_period_expires"] is not None
    await bob.refused("not_a_member", "chat", room=call.room, text="out")

    joined = await bob.ask("join", "joined", room=call.room)
    assert joined["peer"] == "joined"
    assert await alice.expect("peer", room=call.room, state="joined") == {
        "type": "peer",
        "room": call.room,
        "state": "joined",
    }
    await harness.stored(call.room, status="active", grace_period_expires=None, user_2_connected=True)
    await call.goes_on()


async def test_end_hangs_up_for_both(harness: Harness) -> None:
    call = await harness.call()
    assert await call.bob.client.request("end", room=call.room) == {"type": "ok", "id": "r3"}
    for client in call.clients:
        assert await client.receive() == {"type": "ended", "room": call.room, "reason": "hangup"}
        for kind in ("join", "leave", "end", "typing"):
            await client.refused("room_ended", kind, room=call.room)
    ended = await harness.stored(call.room, status="ended", ended_reason="hangup", user_1_connected=False)
    assert ended["ended_at"] >= ended["started_at"]
    assert ended["grace_period_expires"] is None


async def test_a_text_room_becomes_a_video_room_when_both_want_it(harness: Harness) -> None:
    call = await harness.call(chat_mode="text")
    alice, bob = call.clients
    room = call.room
    await alice.refused("bad_request", "mode", room=room, action="accept")
    for answer in ("decline", "accept"):
        await alice.ask("mode", "ok", room=room, action="request")
        await bob.expect("mode", room=room, action="request")
        await alice.refused("bad_request", "mode", room=room, action="accept")
        await bob.ask("mode", "ok", room=room, action=answer)
        await alice.expect("mode", room=room, action=answer)
        await harness.stored(room, chat_mode="video" if answer == "accept" else "text")
    await bob.refused("bad_request", "mode", room=room, action="request")
    await call.goes_on()


async def test_the_backend_ends_a_room(harness: Harness) -> None:
    call = await harness.call()
    ended = await harness.cluster.end_room(call.room, node=1)
    assert (ended["status"], ended["ended_reason"]) == ("ended", "deleted")
    for client in call.clients:
        await client.expect("ended", room=call.room, reason="deleted")
        await client.refused("room_ended", "join", room=call.room)
    assert await harness.stored(call.room) == ended
    assert await harness.cluster.end_room(call.room, node=0) == ended, "once more changes nothing"


async def test_the_backend_sees_the_live_rooms_of_a_user(harness: Harness) -> None:
    call = await harness.call()
    other = await harness.cluster.open_room(uuid.uuid4(), call.alice.user, chat_mode="text", node=1)

    async def rooms_of(user: uuid.UUID, node: int) -> list[dict[str, Any]]:
        listed = (await harness.cluster.api("GET", f"/v1/rooms?user={user}", node=node))["rooms"]
        return sorted(listed, key=lambda room: str(room["chat_mode"]))

    shown = await harness.stored(call.room)
    for node in (0, 1):
        assert await rooms_of(call.alice.user, node) == [other, shown]
        assert await rooms_of(call.bob.user, node) == [shown]
        assert await rooms_of(uuid.uuid4(), node) == []
    await harness.cluster.end_room(call.room)
    assert await rooms_of(call.alice.user, 1) == [other]


async def test_the_backend_is_refused_with_a_reason(harness: Harness) -> None:
    node, user = harness.nodes[1], str(uuid.uuid4())
    refusals = [
        ("GET", f"/v1/rooms/{uuid.uuid4()}", None, 404, "room_not_found"),
        ("DELETE", f"/v1/rooms/{uuid.uuid4()}", None, 404, "room_not_found"),
        ("GET", "/v1/rooms/lobby", None, 400, "bad_request"),
        ("GET", "/v1/rooms", None, 400, "bad_request"),
        ("POST", "/v1/rooms", {"user_1": user}, 400, "bad_request"),
        ("POST", "/v1/rooms", {"user_1": user, "user_2": user}, 400, "bad_request"),
        ("POST", "/v1/rooms", {"user_1": user, "user_2": "bob"}, 400, "bad_request"),
        ("POST", "/v1/users/bob/disconnect", None, 400, "bad_request"),
        ("PUT", "/v1/rooms", None, 405, "method_not_allowed"),
        ("GET", "/v2/rooms", None, 404, "not_found"),
    ]
    for method, path, body, status, code in refusals:
        with pytest.raises(HttpFailed) as refused:
            await harness.cluster.api(method, path, node=node, json=body)
        assert (refused.value.status, refused.value.body["error"]["code"]) == (status, code)

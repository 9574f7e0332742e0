"""The SDK on the bad days of clients: mistakes of users, full queues, dead networks, doors that stay shut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest

from keepline.client import (
    AttemptFailed,
    Call,
    CallEnded,
    ConnectFailed,
    ConnectionClosed,
    Ended,
    Keepline,
    KeeplineError,
    Options,
    PeerChanged,
    Rejoined,
    RequestFailed,
    RequestTimedOut,
    SignalLost,
    SignalReceived,
    SignalRefused,
    State,
)
from tests.helpers.waiting import eventually
from tests.unit.client.scripted_node import (
    ROOM,
    ScriptedNode,
    Visit,
    Waits,
    membership,
    next_events,
    quick,
    scripted_node,
    together,
    welcomed,
)

LIMITS = {
    "frames_per_second": 50,
    "frames_burst": 200,
    "frame_bytes": 2048,
    "chat_length": 10,
    "ping_ms": 8000,
}


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    async with scripted_node() as running:
        yield running


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(node: ScriptedNode, waits: Waits) -> AsyncIterator[Keepline]:
    client = Keepline(node.url, "token", options=quick(waits))
    yield client
    await client.close()


async def join(client: Keepline, node: ScriptedNode, **welcome: Any) -> tuple[Call, Visit]:
    visit, _ = await welcomed(client, node, **welcome)
    call, _ = await together(client.join(ROOM), visit.admit("joined"))
    assert await next_events(call, 1) == [PeerChanged("joined")]
    return call, visit


# --- two devices ---


async def test_a_device_that_was_replaced_while_away_stays_out(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    assert (await visit.read("hello"))["resume"] == "secret-1"
    await visit.close(4409, "replaced by another connection of the same user")
    with pytest.raises(ConnectionClosed) as closed:
        await next_events(call, 1)
    assert closed.value.code == 4409
    assert client.state is State.CLOSED


async def test_the_stream_of_whoever_holds_the_peers_side_is_heard(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    for stream, n in (("phone", 1), ("laptop", 1), ("phone", 2)):
        await visit.send("peer", room=ROOM, state="reconnected")
        await visit.send("signal", room=ROOM, stream=stream, n=n, data=stream)
    events = await next_events(call, 6)
    assert events[1::2] == [SignalReceived(stream) for stream in ("phone", "laptop", "phone")]


# --- a half-open socket ---


async def test_a_half_open_connection_is_left(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=quick(ping_interval=0.1, close_timeout=0.1))
    call, visit = await join(client, node)
    visit.freeze()
    visit = await node.visit()
    await visit.welcome(resumed=True, rooms=[membership()])
    assert await next_events(call, 1) == [Rejoined(resumed=True)]
    await client.close()


def test_it_is_noticed_within_twenty_seconds() -> None:
    options = Options()
    assert 2 * options.ping_interval + options.close_timeout + options.backoff_base < 20


# --- mistakes of users ---


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * 501, "501 characters"),
        ("", "0 characters"),
        ("\N{GRINNING FACE}" * 501, "501 characters"),
        ("cut \ud83d", "cut through a character at 4"),
        ("nul\0", r"U\+0000"),
        (7, "not int"),
    ],
    ids=["too long", "empty", "too many code points", "cut through an emoji", "with U+0000", "no string"],
)
async def test_a_text_that_no_node_takes_is_not_sent(
    client: Keepline, node: ScriptedNode, text: Any, why: str
) -> None:
    call, visit = await join(client, node)
    for attempt in (call.chat(text), call.report(text), client.report(ROOM, text)):
        with pytest.raises(RequestFailed, match=why) as refused:
            await attempt
        assert refused.value.code == "bad_request"
    await call.typing()
    await visit.read("typing")


async def test_five_hundred_emojis_are_sent(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.create_task(call.chat("\N{GRINNING FACE}" * 500))
    request = await visit.read("chat")
    await visit.answer(request, "error", code="unavailable", message="no")
    with pytest.raises(RequestFailed, match="unavailable"):
        await chatting


async def test_the_node_says_how_long_a_line_may_be(client: Keepline, node: ScriptedNode) -> None:
    call, _ = await join(client, node, limits=LIMITS)
    with pytest.raises(RequestFailed, match="1 to 10 are allowed"):
        await call.chat("x" * 11)


@pytest.mark.parametrize("room", ["", "not-a-uuid", "x" * 36, f"{{{ROOM}}}", ROOM.replace("-", "")])
async def test_what_is_no_room_id_is_not_asked_for(client: Keepline, node: ScriptedNode, room: str) -> None:
    with pytest.raises(RequestFailed, match="is not a room id"):
        await client.join(room)
    with pytest.raises(RequestFailed, match="is not a room id"):
        await client.report(room, "rude")


async def test_room_ids_may_be_in_upper_case(client: Keepline, node: ScriptedNode) -> None:
    visit, _ = await welcomed(client, node)
    call, _ = await together(client.join(ROOM.upper()), visit.admit())
    assert call.room_id == ROOM
    assert (await client.join(ROOM)).room_id == ROOM, "the same call: nothing is asked"


# --- large signals ---


async def test_a_signal_that_is_too_large_does_not_end_the_client(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    with pytest.raises(RequestFailed, match="65536") as refused:
        call.signal(description={"type": "offer", "sdp": "x" * 65_536})
    assert refused.value.code == "too_large"
    call.send("small")
    frame = await visit.read("signal")
    assert (frame["n"], frame["data"]) == (2, "small"), "it used up no number"


async def test_a_signal_queued_for_a_node_that_allows_less_is_refused(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    large = call.send("x" * 3000)
    call.send("small")
    await visit.welcome(limits=LIMITS, resumed=True, rooms=[membership()])
    assert (await visit.read("signal"))["data"] == "small"
    assert await next_events(call, 1) == [Rejoined(resumed=True)]
    with pytest.raises(SignalLost, match="too_large"):
        await large


# --- a full queue ---


async def test_all_that_waited_leaves_in_order_and_no_faster_than_the_node_allows(
    node: ScriptedNode, waits: Waits
) -> None:
    client = Keepline(node.url, "token", options=quick(waits, clock=lambda: 0.0))
    call, visit = await join(client, node)
    await visit.peer_is_older()
    visit.kill()
    visit = await node.visit()
    for n in range(1, 257):
        call.send(n)
    waits.asked.clear()
    await visit.welcome(limits=LIMITS, resumed=True, rooms=[membership()])
    assert [(await visit.read("signal"))["data"] for _ in range(256)] == list(range(1, 257))
    # With the presence note. Seven tenths of the burst of 200 leave at once, the other 117 at 0.9 * 50 a second.
    assert waits.asked == pytest.approx([n / 45 for n in range(1, 118)])
    await client.close()


async def test_a_node_that_wants_to_hear_nothing_for_a_while_is_obeyed(
    node: ScriptedNode, waits: Waits
) -> None:
    client = Keepline(node.url, "token", options=quick(waits, clock=lambda: 0.0))
    call, visit = await join(client, node)
    assert (await visit.any())["data"] == {"here": None}
    await visit.send("error", code="rate_limited", message="too many", retry_after_ms=1500)
    assert isinstance((await next_events(call, 1))[0], SignalRefused)
    call.send("later")
    assert (await visit.read("signal"))["data"] == "later"
    assert waits.asked == [1.5]
    reporting = asyncio.create_task(call.report("rude"))
    refused = await visit.read("report")
    waits.asked.clear()
    await visit.answer(refused, "error", code="rate_limited", message="no", retry_after_ms=9000)
    with pytest.raises(RequestFailed, match="rate_limited"):
        await reporting
    call.send("now")
    assert (await visit.read("signal"))["data"] == "now"
    assert max(waits.asked, default=0) < 2, "that was about reports"
    await client.close()


async def test_what_waited_leaves_when_the_peer_is_there_to_get_it(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    call.send("one")
    await visit.welcome(resumed=True, rooms=[membership("reconnecting")])
    assert await next_events(call, 2) == [Rejoined(resumed=True), PeerChanged("reconnecting")]
    call.send("two")
    await call.typing()
    assert (await visit.any())["type"] == "typing", "the signals are still here"
    await visit.send("peer", room=ROOM, state="reconnected")
    assert [(await visit.read("signal"))["data"] for _ in range(2)] == ["one", "two"]
    call.send("three")
    assert (await visit.read("signal"))["data"] == "three"


# --- leaving and coming again ---


async def test_leaving_and_at_once_joining_gives_a_call_of_its_own(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    leaving = asyncio.create_task(call.leave())
    await asyncio.sleep(0)
    joining = asyncio.create_task(client.join(ROOM))
    await visit.answer(await visit.read("leave"), "ok")
    await visit.admit("joined")
    await leaving
    again = await joining
    assert (call.ended, again.ended) == ("left", None)
    await again.send("alive")
    assert (await visit.read("signal"))["data"] == "alive"
    with pytest.raises(CallEnded):
        call.send("dead")


@pytest.mark.parametrize(("kind", "ended"), [("end", "hangup"), ("leave", "left")])
@pytest.mark.parametrize("resumed", [True, False])
async def test_what_was_meant_without_a_network_is_done_with_the_next_connection(
    node: ScriptedNode, kind: str, ended: str, resumed: bool
) -> None:
    client = Keepline(node.url, "token", options=quick(request_timeout=0.5))
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    with pytest.raises(RequestTimedOut, match="when the client is connected again"):
        await getattr(call, kind)()
    visit.kill()
    visit = await node.visit()
    await visit.welcome(resumed=resumed, rooms=[membership()] if resumed else [])
    if not resumed:
        await visit.admit("joined")
    await visit.answer(await visit.read(kind), "ok")
    await eventually(lambda: call.ended == ended)
    await client.close()


async def test_a_departure_that_is_refused_for_now_is_asked_for_again(
    client: Keepline, node: ScriptedNode, waits: Waits
) -> None:
    call, visit = await join(client, node)
    ending = asyncio.create_task(call.end())
    refused = await visit.read("end")
    await visit.answer(refused, "error", code="unavailable", message="no", retry_after_ms=1000)
    await visit.answer(await visit.read("end"), "ok")
    await ending
    assert waits.asked == [1.25]


async def test_a_departure_that_can_never_be_raises(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    ending = asyncio.create_task(call.end())
    await visit.answer(await visit.read("end"), "error", code="bad_request", message="no")
    with pytest.raises(RequestFailed, match="bad_request"):
        await ending
    assert call.ended is None


async def test_hanging_up_and_closing_at_once_leaves_no_task_behind(
    client: Keepline, node: ScriptedNode
) -> None:
    call, _ = await join(client, node)
    ending = asyncio.create_task(call.end())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConnectionClosed):
        await ending
    own = asyncio.current_task()
    names = [task.get_name() for task in asyncio.all_tasks() if task is not own]
    assert not [name for name in names if name.startswith("keepline")]


async def test_one_who_was_away_learns_why_the_call_ended(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    refused = await visit.read("join")
    told = {"room": ROOM, "code": "room_ended", "message": "over", "reason": "grace_expired"}
    await visit.answer(refused, "error", **told)
    assert await next_events(call, 2) == [Ended("grace_expired")]


# --- doors that stay shut ---


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "https://a.example/v1", "a.example", "ws://", "ws://h/#f"]
)
def test_what_is_no_address_of_a_websocket_raises_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="ws://"):
        Keepline(url, "token")


async def test_each_attempt_that_fails_is_told_with_its_status(node: ScriptedNode) -> None:
    node.refuse_with = HTTPStatus.NOT_FOUND
    failures: list[KeeplineError] = []
    client = Keepline(node.url, "token", on_error=failures.append, options=quick(first_connect_timeout=0.3))
    with pytest.raises(ConnectFailed, match=r"HTTP 404 Not Found: not now"):
        await client.__aenter__()
    assert len(failures) in (node.refused, node.refused - 1)
    assert len(failures) > 1
    assert {(failure.url, failure.status) for failure in failures if isinstance(failure, AttemptFailed)} == {
        (node.url, 404)
    }


async def test_a_closed_port_is_told() -> None:
    async with scripted_node() as dead:
        url = dead.url
    failures: list[KeeplineError] = []
    client = Keepline(url, "token", on_error=failures.append, options=quick(first_connect_timeout=0.3))
    with pytest.raises(ConnectFailed, match="cannot connect to ws://127"):
        await client.__aenter__()
    assert isinstance(failures[0], AttemptFailed)
    assert failures[0].status is None


@pytest.mark.parametrize(("value", "least"), [("7", 7.0), ("soon", 0.0)])
async def test_retry_after_is_obeyed_with_jitter_on_top(
    node: ScriptedNode, waits: Waits, value: str, least: float
) -> None:
    node.refuse_with, node.headers = HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": value}
    client = Keepline(node.url, "token", options=quick(waits))
    entering = asyncio.create_task(client.__aenter__())
    await eventually(lambda: node.refused > 3)
    node.refuse_with = None
    await (await node.visit()).welcome()
    await entering
    assert waits.asked[:4] == [least + wait for wait in (0.25, 0.5, 1.0, 2.0)]
    await client.close()


async def test_a_callback_that_fails_does_no_harm(node: ScriptedNode) -> None:
    def fail(error: KeeplineError) -> None:
        raise RuntimeError(str(error))

    node.refuse_with = HTTPStatus.SERVICE_UNAVAILABLE
    client = Keepline(node.url, "token", on_error=fail, options=quick())
    entering = asyncio.create_task(client.__aenter__())
    await eventually(lambda: node.refused > 1)
    node.refuse_with = None
    await (await node.visit()).welcome()
    await entering
    await client.close()


async def test_a_proxy_that_cannot_be_used_is_said_at_once(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=Options(proxy="socks5://127.0.0.1:1"))
    with pytest.raises(ConnectFailed, match=r"proxy cannot be used: .*python-socks"):
        await client.__aenter__()
    assert client.state is State.CLOSED


@pytest.mark.parametrize("code", ["unauthorized", "bad_request"])
async def test_a_client_that_is_refused_for_good_has_the_servers_sentence(
    client: Keepline, node: ScriptedNode, code: str
) -> None:
    entering = asyncio.create_task(client.__aenter__())
    visit = await node.visit()
    hello = await visit.read("hello")
    await visit.answer(hello, "error", code=code, message="the token has expired")
    await visit.close(4401 if code == "unauthorized" else 4400, "a code's own words")
    with pytest.raises(ConnectionClosed, match="the token has expired"):
        await entering


async def test_a_token_that_is_refused_is_told_before_the_next_is_tried(node: ScriptedNode) -> None:
    failures: list[KeeplineError] = []

    async def fetch() -> str:
        return "token"

    client = Keepline(node.url, fetch, on_error=failures.append, options=quick())
    entering = asyncio.create_task(client.__aenter__())
    visit = await node.visit()
    await visit.answer(await visit.read("hello"), "error", code="unauthorized", message="expired")
    await visit.close(4401, "unauthorized")
    await (await node.visit()).welcome()
    await entering
    assert [str(failure) for failure in failures] == ["unauthorized: expired"]
    await client.close()

"""The SDK against a scripted node that breaks, closes and comes back."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from keepline.client import (
    Call,
    ChatReceived,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    Ended,
    Keepline,
    Message,
    PeerChanged,
    ProtocolError,
    Rejoined,
    SignalQueueFull,
    SignalReceived,
    State,
)
from tests.helpers.waiting import eventually
from tests.unit.client.scripted_node import (
    ALICE,
    ROOM,
    ScriptedNode,
    Visit,
    Waits,
    membership,
    message,
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
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(node: ScriptedNode, waits: Waits) -> AsyncIterator[Keepline]:
    client = Keepline(node.url, "token", options=quick(waits, signals_waiting=3))
    yield client
    await client.close()


async def join(client: Keepline, node: ScriptedNode) -> tuple[Call, Visit]:
    visit, _ = await welcomed(client, node)
    call, _ = await together(client.join(ROOM), visit.admit())
    return call, visit


async def test_resumes_with_the_last_secret_and_need_not_join(
    client: Keepline, node: ScriptedNode, waits: Waits
) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    hello = await visit.welcome(resume="secret-2", resumed=True, rooms=[membership("joined")])
    assert hello["resume"] == "secret-1"
    assert visit.path == f"/v1?room={ROOM}"
    assert await next_events(call, 2) == [Rejoined(resumed=True), PeerChanged("joined")]
    call.send("after")
    assert (await visit.read("signal"))["data"] == "after"
    visit.kill()
    assert (await (await node.visit()).welcome())["resume"] == "secret-2"
    assert waits.asked == [0.25, 0.25]


async def test_what_comes_before_the_welcome_of_a_resumed_session_is_not_lost(
    client: Keepline, node: ScriptedNode
) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.send("signal", room=ROOM, data="early")
    await visit.welcome(resumed=True, rooms=[membership("absent")])
    assert await next_events(call, 2) == [Rejoined(resumed=True), SignalReceived("early")]


async def test_rejoins_where_the_session_was_not_resumed(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    await visit.admit(messages=[message(1, "missed")])
    missed = ChatReceived(Message.parse(message(1, "missed")))
    assert await next_events(call, 2) == [Rejoined(resumed=False), missed]


async def test_signals_wait_for_the_rejoin_and_keep_their_order(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    await visit.send("peer", room=ROOM, state="joined")
    await visit.peer_is_older()
    call.send("before")
    before = (await visit.read("signal"))["n"]
    visit.kill()
    visit = await node.visit()
    assert client.state is State.RECONNECTING
    for data in ("one", "two", "three"):
        call.send(data)
    with pytest.raises(SignalQueueFull):
        call.send("four")
    await call.typing()
    await visit.welcome()
    await visit.admit("joined")
    flushed = [await visit.read("signal") for _ in range(3)]
    # the presence note has the number in between
    assert [(frame["n"] - before, frame["data"]) for frame in flushed] == [
        (2, "one"),
        (3, "two"),
        (4, "three"),
    ]


async def test_requests_wait_for_the_rejoin(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    chatting = asyncio.ensure_future(call.chat("patience"))
    await visit.welcome()
    await visit.admit()
    request = await visit.read("chat")
    await visit.answer(request, "ok", message=message(1, "patience", ALICE))
    assert (await chatting).text == "patience"


async def test_a_chat_without_answer_is_not_repeated(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    chatting = asyncio.ensure_future(call.chat("once?"))
    await visit.read("chat")
    visit.kill()
    with pytest.raises(ConnectionLost):
        await chatting


async def test_an_end_without_answer_is_repeated(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    ending = asyncio.ensure_future(call.end())
    await visit.read("end")
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    await visit.admit()
    await visit.answer(await visit.read("end"), "ok")
    await ending
    assert call.ended == "hangup"


async def test_a_report_without_answer_is_repeated(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    reporting = asyncio.ensure_future(call.report("rude"))
    await visit.read("report")
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    await visit.answer(await visit.read("report"), "ok")
    await reporting


async def test_a_call_that_ended_meanwhile_is_over(client: Keepline, node: ScriptedNode) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    await visit.answer(await visit.read("join"), "error", room=ROOM, code="room_ended", message="over")
    assert await next_events(call, 2) == [Ended("room_ended")]
    assert client.state is State.CONNECTED


async def test_a_rejoin_that_is_not_possible_yet_is_tried_again(
    client: Keepline, node: ScriptedNode, waits: Waits
) -> None:
    call, visit = await join(client, node)
    visit.kill()
    visit = await node.visit()
    await visit.welcome()
    refused = await visit.read("join")
    await visit.answer(refused, "error", code="unavailable", message="no", retry_after_ms=2000)
    await visit.admit()
    assert await next_events(call, 1) == [Rejoined(resumed=False)]
    assert waits.asked == [0.25, 2.25]


async def test_a_node_that_does_not_answer_the_rejoin_is_left(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=quick(request_timeout=0.1))
    call, visit = await join(client, node)
    visit.kill()
    silent = await node.visit()
    await silent.welcome()
    await silent.read("join")
    visit = await node.visit()
    await visit.welcome()
    await visit.admit()
    assert await next_events(call, 1) == [Rejoined(resumed=False)]
    await client.close()


async def test_after_a_goodbye_the_next_connection_is_there_before_the_last_is_gone(
    node: ScriptedNode,
) -> None:
    states: list[State] = []
    client = Keepline(node.url, "token", options=quick(), on_state=states.append)
    call, first = await join(client, node)
    await first.send("goodbye", reason="draining", reconnect_after_ms=300)
    second = await node.visit()
    await first.send("signal", room=ROOM, data="before the move")
    hello = await second.welcome(resume="secret-2", resumed=True, rooms=[membership()])
    assert hello["resume"] == "secret-1"
    moved = [SignalReceived("before the move"), Rejoined(resumed=True), PeerChanged("joined")]
    assert await next_events(call, 3) == moved
    call.send("from the new place")
    assert (await second.read("signal"))["data"] == "from the new place"
    await second.send("signal", room=ROOM, data="after it")
    await first.send("signal", room=ROOM, data="on its way")
    await first.close(4409, "replaced")
    assert await next_events(call, 2) == [SignalReceived("on its way"), SignalReceived("after it")]
    assert states == [State.CONNECTING, State.CONNECTED]
    await client.close()
    assert await second.gone() == 1000


async def test_a_move_that_fails_is_tried_again_while_the_connection_works(
    client: Keepline, node: ScriptedNode, waits: Waits
) -> None:
    call, first = await join(client, node)
    node.refuse_with = HTTPStatus.SERVICE_UNAVAILABLE
    await first.send("goodbye", reason="draining", reconnect_after_ms=300)
    await eventually(lambda: node.refused >= 2)
    node.refuse_with = None
    busy = await node.visit()
    node.refuse_with, refused = HTTPStatus.SERVICE_UNAVAILABLE, node.refused
    await busy.answer(await busy.read("hello"), "error", code="unavailable", message="no", retry_after_ms=1)
    await eventually(lambda: node.refused > refused)
    await first.send("peer", room=ROOM, state="joined")
    call.send("still here")
    assert (await first.read("signal"))["data"] == "still here"
    node.refuse_with = None
    second = await node.visit()
    await second.welcome(resume="secret-2", resumed=True, rooms=[membership()])
    assert await next_events(call, 2) == [PeerChanged("joined"), Rejoined(resumed=True)]
    assert waits.asked[:2] == [0.3, 0.25]


async def test_what_is_sent_during_a_move_waits_for_the_next_connection(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=quick())
    call, first = await join(client, node)
    await first.send("goodbye", reason="draining", reconnect_after_ms=0)
    second = await node.visit()
    hello = await second.read("hello")
    call.send("in between")
    line = asyncio.create_task(call.chat("and a line"))
    fields = {"user": ALICE, "session": "s2", "resume": "secret-2", "node": "node-2", "ice_servers": []}
    await second.answer(hello, "welcome", **fields, resumed=True, rooms=[membership()])
    sent = {frame["type"]: frame for frame in [await second.any() for _ in range(3)]}
    assert sent["signal"]["data"] == "in between"
    await second.answer(sent["chat"], "ok", message=message(1, "and a line"))
    assert (await line).text == "and a line"
    await client.close()
    assert await first.gone() == 1000


async def test_a_session_that_is_not_resumed_by_a_move_joins_again(
    client: Keepline, node: ScriptedNode
) -> None:
    call, first = await join(client, node)
    await first.send("goodbye", reason="draining", reconnect_after_ms=0)
    second = await node.visit()
    await second.welcome(resume="secret-2")
    await first.close(4409, "replaced")
    await second.admit()
    assert await next_events(call, 1) == [Rejoined(resumed=False)]


async def test_goodbye_is_obeyed(node: ScriptedNode) -> None:
    waits, now = Waits(), 0.0
    client = Keepline(node.url, "token", options=quick(waits, clock=lambda: now))
    visit, _ = await welcomed(client, node)
    await visit.send("goodbye", reason="draining", reconnect_after_ms=1240)
    await visit.close(4503, "draining")
    await (await node.visit()).welcome()
    assert waits.asked == [1.24]
    await client.close()


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4409, 4413])
async def test_a_final_close_ends_the_client(client: Keepline, node: ScriptedNode, code: int) -> None:
    call, visit = await join(client, node)
    await visit.close(code, "because")
    with pytest.raises(ConnectionClosed) as closed:
        await next_events(call, 1)
    assert (closed.value.code, closed.value.reason) == (code, "because")
    assert client.state is State.CLOSED
    with pytest.raises(ConnectionClosed):
        call.send("late")
    with pytest.raises(ConnectionClosed):
        await client.join(ROOM)


async def test_every_connection_asks_for_a_token(node: ScriptedNode, waits: Waits) -> None:
    tokens = iter(["first", "expired", "third"])

    async def fetch() -> str:
        return next(tokens)

    client = Keepline(node.url, fetch, options=quick(waits))
    visit, hello = await welcomed(client, node)
    assert hello["token"] == "first"
    visit.kill()
    visit = await node.visit()
    refused = await visit.read("hello")
    await visit.answer(refused, "error", code="unauthorized", message="expired")
    await visit.close(4401, "unauthorized")
    hello = await (await node.visit()).welcome()
    assert (hello["token"], hello["resume"]) == ("third", "secret-1")
    assert waits.asked == [0.25, 0.0]
    await client.close()


async def test_a_supply_of_tokens_that_fails_is_asked_again(node: ScriptedNode) -> None:
    answers: list[str | None] = ["good", None]

    async def fetch() -> str:
        if (token := answers.pop()) is None:
            raise OSError("the token service is away")
        return token

    client = Keepline(node.url, fetch, options=quick())
    _, hello = await welcomed(client, node)
    assert hello["token"] == "good"
    await client.close()


async def test_a_refused_token_fails_the_entry(client: Keepline, node: ScriptedNode) -> None:
    async def refuse() -> None:
        visit = await node.visit()
        await visit.answer(await visit.read("hello"), "error", code="unauthorized", message="no")
        await visit.close(4401, "unauthorized")

    entering = asyncio.ensure_future(client.__aenter__())
    await refuse()
    with pytest.raises(ConnectionClosed) as closed:
        await entering
    assert closed.value.code == 4401


async def test_a_hello_that_is_refused_for_now_waits_as_told(node: ScriptedNode, waits: Waits) -> None:
    client = Keepline(node.url, "token", options=quick(waits))
    entering = asyncio.ensure_future(client.__aenter__())
    visit = await node.visit()
    hello = await visit.read("hello")
    await visit.answer(hello, "error", code="unavailable", message="no", retry_after_ms=3000)
    await (await node.visit()).welcome()
    await entering
    assert waits.asked == [3.25]
    await client.close()


async def test_a_cluster_that_refuses_connections_is_tried_until_time_is_up(node: ScriptedNode) -> None:
    node.refuse_with = HTTPStatus.SERVICE_UNAVAILABLE
    client = Keepline(node.url, "token", options=quick(first_connect_timeout=0.3))
    with pytest.raises(ConnectFailed) as failure:
        await client.__aenter__()
    assert isinstance(failure.value.__cause__, ConnectionLost)
    assert node.refused > 1
    assert client.state is State.CLOSED


async def test_the_next_address_is_tried(node: ScriptedNode) -> None:
    async with scripted_node() as dead:
        dead_url = dead.url
    client = Keepline([dead_url, node.url], "token", options=quick())
    visit, _ = await welcomed(client, node)
    await client.close()
    assert await visit.gone() == 1000


async def test_a_server_of_another_protocol_is_not_spoken_to() -> None:
    async with scripted_node(subprotocol=None) as stranger:
        client = Keepline(stranger.url, "token", options=quick(first_connect_timeout=0.3))
        with pytest.raises(ConnectFailed) as failure:
            await client.__aenter__()
    assert isinstance(failure.value.__cause__, ProtocolError)


async def test_states_are_told_in_order(node: ScriptedNode) -> None:
    states: list[State] = []
    client = Keepline(node.url, "token", on_state=states.append, options=quick())
    visit, _ = await welcomed(client, node)
    visit.kill()
    await (await node.visit()).welcome()
    await eventually(lambda: client.state is State.CONNECTED)
    await client.close()
    await client.close()
    assert states == [
        State.CONNECTING,
        State.CONNECTED,
        State.RECONNECTING,
        State.CONNECTED,
        State.CLOSED,
    ]


async def test_closing_ends_the_events_without_an_error(client: Keepline, node: ScriptedNode) -> None:
    call, _ = await join(client, node)
    reading = asyncio.ensure_future(next_events(call, 1))
    await client.close()
    assert await reading == []


async def test_a_call_needs_an_address() -> None:
    with pytest.raises(ValueError, match="url"):
        Keepline([], "token")


async def test_nothing_is_known_before_the_welcome(node: ScriptedNode) -> None:
    with pytest.raises(RuntimeError, match="welcomed"):
        _ = Keepline(node.url, "token").user


async def test_a_node_that_does_not_read_is_left_and_loses_nothing(node: ScriptedNode) -> None:
    client = Keepline(
        node.url,
        "token",
        options=quick(request_timeout=0.3, signals_waiting=500, signal_bytes_waiting=1 << 26),
    )
    call, visit = await join(client, node)
    await visit.send("peer", room=ROOM, state="joined")
    await visit.peer_is_older()
    for n in range(1, 401):  # more than sockets and libraries buffer
        call.send({"n": n, "ballast": "x" * 60_000})
    visit = await node.visit()
    await visit.welcome()
    await visit.admit("joined")
    first = (await visit.read("signal"))["data"]["n"]
    rest = [(await visit.read("signal"))["data"]["n"] for _ in range(400 - first)]
    assert first > 1
    assert rest == list(range(first + 1, 401))
    await client.close()


async def test_too_much_before_the_welcome_is_not_kept(node: ScriptedNode) -> None:
    client = Keepline(node.url, "token", options=quick())
    entering = asyncio.ensure_future(client.__aenter__())
    visit = await node.visit()
    await visit.read("hello")
    for _ in range(1001):
        await visit.send("typing", room=ROOM)
    await (await node.visit()).welcome()
    await entering
    await client.close()


async def test_a_state_callback_that_fails_does_no_harm(node: ScriptedNode) -> None:
    def fail(state: State) -> None:
        raise RuntimeError(state.value)

    client = Keepline(node.url, "token", on_state=fail, options=quick())
    await welcomed(client, node)
    assert client.state is State.CONNECTED
    await client.close()


async def test_a_failure_of_the_client_itself_is_not_silent(node: ScriptedNode) -> None:
    async def broken(seconds: float) -> None:
        raise RuntimeError("no timers left")

    client = Keepline(node.url, "token", options=quick(sleep=broken))
    call, visit = await join(client, node)
    visit.kill()
    with pytest.raises(ConnectionClosed) as closed:
        await next_events(call, 1)
    assert closed.value.code == 1011
    await client.close()

"""A line of chat is stored once, whatever dies before its writer has heard of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.acceptance.harness import ON_ONE_NODE, ON_TWO_NODES, PLACEMENTS, Call, Harness, Placement
from tests.helpers.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session", params=PLACEMENTS)
async def harness(request: pytest.FixtureRequest, patient_cluster: Cluster) -> AsyncIterator[Harness]:
    nodes: Placement = request.param
    async with Harness(patient_cluster, nodes) as harness:
        yield harness


async def test_asked_again_on_any_node_it_is_the_same_line(harness: Harness) -> None:
    call = await harness.call(chat_mode="text")
    line = (await call.alice.client.ask("chat", "ok", room=call.room, text="hi", key="k"))["message"]
    assert set(line) == {"seq", "from", "text", "at"}
    await call.bob.client.expect("chat", room=call.room, message=line)
    for text in ("hi", "another text"):
        again = await call.alice.client.ask("chat", "ok", room=call.room, text=text, key="k")
        assert again["message"] == line

    call.alice.client.cut()
    await call.bob.client.expect("peer", room=call.room, state="away")
    elsewhere = 1 - call.alice.node
    back = await harness.login(call.alice.user, elsewhere, resume=call.alice.welcome["resume"])
    await call.bob.client.expect("peer", room=call.room, state="reconnected")
    again = await back.client.ask("chat", "ok", room=call.room, text="hi", key="k")
    assert again["message"] == line

    other = await back.client.ask("chat", "ok", room=call.room, text="hi", key="another key")
    assert other["message"]["seq"] == 2
    await call.bob.client.expect("chat", room=call.room, message=other["message"])
    await Call(call.room, back, call.bob).goes_on()
    assert [each["seq"] for each in (await harness.stored(call.room))["messages"]] == [1, 2]


async def test_many_at_once_with_one_key_are_one_line(harness: Harness) -> None:
    call = await harness.call(chat_mode="text")
    for number in range(20):
        for client in call.clients:
            await client.send("chat", id=f"{number}", room=call.room, text="hi", key="k")
    lines = []
    for client in call.clients:
        answers = 0
        while answers < 20:
            frame = await client.receive()
            answers += frame["type"] == "ok"
            lines.append(frame["message"])
    assert lines == [lines[0]] * 41, "forty answers, and the line once to one who did not write it"
    assert len((await harness.stored(call.room))["messages"]) == 1


async def test_after_the_end_the_answer_is_certain(harness: Harness) -> None:
    call = await harness.call(chat_mode="text")
    line = (await call.alice.client.ask("chat", "ok", room=call.room, text="hi", key="k"))["message"]
    await call.bob.client.ask("end", "ok", room=call.room)
    await call.alice.client.expect("ended", room=call.room, reason="hangup")
    for _ in range(2):
        again = await call.alice.client.ask("chat", "ok", room=call.room, text="hi", key="k")
        assert again["message"] == line
        error = await call.alice.client.ask("chat", "error", room=call.room, text="hi", key="unknown")
        assert (error["code"], error["reason"]) == ("room_ended", "hangup")
        # and for one who was away when the room ended
        call.alice = await harness.login(call.alice.user, 1 - call.alice.node)

    stranger = await harness.login(call.bob.user.__class__(int=1), 0)
    error = await stranger.client.ask("chat", "error", room=call.room, text="hi", key="k")
    assert error["code"] == "not_a_member"


async def test_a_room_that_goes_on_has_to_be_joined_for_a_new_line(patient_cluster: Cluster) -> None:
    async with Harness(patient_cluster, ON_ONE_NODE) as harness:
        call = await harness.call(chat_mode="text")
        line = (await call.alice.client.ask("chat", "ok", room=call.room, text="hi", key="k"))["message"]
        back = await harness.login(call.alice.user, 1)
        error = await back.client.ask("chat", "error", room=call.room, text="hi", key="new")
        assert error["code"] == "not_a_member"
        assert (await back.client.ask("chat", "ok", room=call.room, text="hi", key="k"))["message"] == line


@pytest.mark.parametrize("key", ["", "x" * 65, 7, None, "a\0b"])
async def test_a_key_that_is_none_is_refused(patient_cluster: Cluster, key: object) -> None:
    async with Harness(patient_cluster, ON_TWO_NODES) as harness:
        call = await harness.call()
        error = await call.alice.client.ask("chat", "error", room=call.room, text="hi", key=key)
        assert error["code"] == "bad_request"

"""Coming back over the bare protocol: resume, join again, take over, be put out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.acceptance.harness import PLACEMENTS, Call, Harness, Placement
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRACE_MS = 10_000


@pytest_asyncio.fixture(loop_scope="session", params=PLACEMENTS)
async def harness(request: pytest.FixtureRequest, patient_cluster: Cluster) -> AsyncIterator[Harness]:
    nodes: Placement = request.param
    async with Harness(patient_cluster, nodes) as harness:
        yield harness


async def lose_bob(harness: Harness, call: Call) -> None:
    """Break Bob's connection and wait until everybody knows."""
    call.bob.client.cut()
    lost = await call.alice.client.expect("peer", room=call.room, state="reconnecting")
    assert lost["grace_ms"] == GRACE_MS
    stored = await harness.stored(call.room, status="grace_period", user_2_connected=False)
    assert stored["grace_period_expires"] is not None


async def back_to_normal(harness: Harness, call: Call) -> None:
    """Alice hears that Bob is back, and nothing else; both can talk; all records agree."""
    await call.alice.client.expect("peer", room=call.room, state="reconnected")
    await call.goes_on()
    whole = {"status": "active", "grace_period_expires": None}
    await harness.stored(call.room, user_1_connected=True, user_2_connected=True, **whole)


def other_node(node: int) -> int:
    return 1 - node


async def test_who_is_cut_off_resumes_on_the_other_node_and_need_not_join(harness: Harness) -> None:
    call = await harness.call()
    said = (await call.bob.client.ask("chat", "ok", room=call.room, text="one"))["message"]
    await call.alice.client.expect("chat", room=call.room, message=said)
    await lose_bob(harness, call)
    missed = (await call.alice.client.ask("chat", "ok", room=call.room, text="two"))["message"]

    secret = call.bob.welcome["resume"]
    call.bob = await harness.login(call.bob.user, other_node(call.bob.node), resume=secret)
    welcome = call.bob.welcome
    assert welcome["resumed"] is True
    assert welcome["resume"] != secret
    (held,) = welcome["rooms"]
    assert (held["side"], held["polite"], held["peer"]) == (2, True, "joined")
    assert held["room"]["room_id"] == call.room
    assert held["room"]["user_2_connected"] is True
    assert held["room"]["messages"] == [said, missed]
    await back_to_normal(harness, call)


async def test_who_is_cut_off_comes_back_without_resuming(harness: Harness) -> None:
    call = await harness.call()
    await lose_bob(harness, call)
    call.bob = await harness.login(call.bob.user, other_node(call.bob.node))
    assert call.bob.welcome["resumed"] is False
    assert [held["peer"] for held in call.bob.welcome["rooms"]] == ["joined"]
    await call.bob.client.refused("not_a_member", "chat", room=call.room, text="nothing is held before join")
    joined = await call.bob.client.ask("join", "joined", room=call.room)
    assert (joined["side"], joined["peer"]) == (2, "joined")
    await back_to_normal(harness, call)


async def test_both_are_cut_off_and_come_back_crosswise(harness: Harness) -> None:
    call = await harness.call()
    for client in call.clients:
        client.cut()
    await harness.stored(call.room, status="grace_period", user_1_connected=False, user_2_connected=False)
    node = other_node(call.alice.node)
    call.alice = await harness.login(call.alice.user, node, resume=call.alice.welcome["resume"])
    assert [held["peer"] for held in call.alice.welcome["rooms"]] == ["reconnecting"]
    still = await harness.stored(call.room, user_1_connected=True)
    assert still["status"] == "grace_period"
    node = other_node(call.bob.node)
    call.bob = await harness.login(call.bob.user, node, resume=call.bob.welcome["resume"])
    assert [held["peer"] for held in call.bob.welcome["rooms"]] == ["joined"]
    await back_to_normal(harness, call)


@pytest.mark.parametrize("resumes", [True, False], ids=["with the secret", "without"])
async def test_a_second_connection_takes_over(harness: Harness, resumes: bool) -> None:
    call = await harness.call()
    first = call.bob
    secret = first.welcome["resume"] if resumes else None
    call.bob = await harness.login(first.user, other_node(first.node), resume=secret)
    assert call.bob.welcome["resumed"] is resumes
    assert await first.client.closed() == 4409
    if not resumes:
        await call.bob.client.ask("join", "joined", room=call.room)
    await back_to_normal(harness, call)


@pytest.mark.parametrize("secret", ["wrong", "stale", "of another user"])
async def test_a_secret_that_is_not_the_last_one_resumes_nothing(harness: Harness, secret: str) -> None:
    call = await harness.call()
    stale = call.bob.welcome["resume"]
    for _ in range(2):  # the one before the last is still good
        resume = call.bob.welcome["resume"]
        call.bob = await harness.login(call.bob.user, call.bob.node, resume=resume)
        await call.alice.client.expect("peer", room=call.room, state="reconnected")
    await lose_bob(harness, call)
    secrets = {"wrong": "x" * 32, "stale": stale, "of another user": call.alice.welcome["resume"]}
    call.bob = await harness.login(call.bob.user, call.bob.node, resume=secrets[secret])
    assert call.bob.welcome["resumed"] is False
    assert [held["room"]["user_2_connected"] for held in call.bob.welcome["rooms"]] == [False]
    await call.bob.client.ask("join", "joined", room=call.room)
    await back_to_normal(harness, call)


async def test_a_device_that_comes_back_by_itself_leaves_alone_the_one_in_use(harness: Harness) -> None:
    call = await harness.call()
    phone = call.bob
    await lose_bob(harness, call)
    call.bob = await harness.login(phone.user, other_node(phone.node))
    await call.bob.client.ask("join", "joined", room=call.room)
    for node in (phone.node, other_node(phone.node)):
        late = await harness.connect(node)
        token = harness.cluster.token(phone.user)
        await late.send("hello", token=token, resume=phone.welcome["resume"])
        assert await late.closed() == 4409
    await back_to_normal(harness, call)


async def test_a_welcome_that_was_lost_can_be_asked_for_again(harness: Harness) -> None:
    call = await harness.call()
    resume = call.bob.welcome["resume"]
    for node in (other_node(call.bob.node), call.bob.node):
        call.bob.client.cut()
        call.bob = await harness.login(call.bob.user, node, resume=resume)
        assert call.bob.welcome["resumed"] is True
        assert [held["room"]["room_id"] for held in call.bob.welcome["rooms"]] == [call.room]


async def test_a_resumed_session_does_not_take_back_what_it_had_left(harness: Harness) -> None:
    call = await harness.call()
    await call.bob.client.ask("leave", "ok", room=call.room)
    await call.alice.client.expect("peer", room=call.room, state="left")
    call.bob.client.cut()
    call.bob = await harness.login(
        call.bob.user, other_node(call.bob.node), resume=call.bob.welcome["resume"]
    )
    assert (call.bob.welcome["resumed"], call.bob.welcome["rooms"]) == (True, [])
    await call.bob.client.ask("join", "joined", room=call.room)
    await call.alice.client.expect("peer", room=call.room, state="joined")
    await call.goes_on()


async def test_a_member_lost_from_a_text_room_is_away(harness: Harness) -> None:
    call = await harness.call(chat_mode="text")
    await call.alice.client.ask("mode", "ok", room=call.room, action="request")
    await call.bob.client.expect("mode", room=call.room, action="request")
    call.bob.client.cut()
    away = await call.alice.client.expect("peer", room=call.room, state="away")
    assert "grace_ms" not in away
    await harness.stored(call.room, status="active", grace_period_expires=None, user_2_connected=False)
    missed = (await call.alice.client.ask("chat", "ok", room=call.room, text="are you there?"))["message"]
    await call.alice.client.refused("bad_request", "mode", room=call.room, action="request")

    node = other_node(call.bob.node)
    call.bob = await harness.login(call.bob.user, node, resume=call.bob.welcome["resume"])
    assert call.bob.welcome["rooms"][0]["room"]["messages"] == [missed]
    await call.bob.client.refused("bad_request", "mode", room=call.room, action="accept")
    await back_to_normal(harness, call)


async def test_the_backend_puts_a_user_out(harness: Harness) -> None:
    """It asks the second node, which in one harness holds the user and in the other does not."""
    call = await harness.call()
    path = f"/v1/users/{call.bob.user}/disconnect"
    assert await harness.cluster.api("POST", path, node=1) == {"disconnected": True}
    assert await call.bob.client.closed() == 4409
    assert call.bob.client.websocket.close_reason == "disconnected by the app's backend"
    await call.alice.client.expect("peer", room=call.room, state="reconnecting")
    for user in (call.bob.user, uuid.uuid4()):
        path = f"/v1/users/{user}/disconnect"

        async def is_gone() -> bool:
            answer = await harness.cluster.api("POST", path, node=1)  # noqa: B023 - awaited here
            return answer == {"disconnected": False}

        await eventually(is_gone, what="Redis knows that the user is gone")

    call.bob = await harness.login(call.bob.user, call.bob.node)
    await call.bob.client.ask("join", "joined", room=call.room)
    await back_to_normal(harness, call)

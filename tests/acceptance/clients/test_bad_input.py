"""Frames, rooms and tokens that are no good: each is answered as documented, and nobody else notices."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from tests.acceptance.clients.bare_client import BareClient
from tests.acceptance.harness import PLACEMENTS, Call, Harness, Placement
from tests.helpers.cluster import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"
BAD_FRAMES = 10


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=PLACEMENTS)
async def harness(request: pytest.FixtureRequest, hasty_cluster: Cluster) -> AsyncIterator[Harness]:
    nodes: Placement = request.param
    async with Harness(hasty_cluster, nodes) as harness:
        yield harness


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def call(harness: Harness) -> Call:
    """A call of two others, which has nothing to do with what the tests do."""
    return await harness.call()


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def undisturbed(call: Call) -> AsyncIterator[None]:
    """After each test that call still goes on, and neither of the two has been sent anything."""
    yield
    await call.goes_on(mark=str(uuid.uuid4()))


@pytest_asyncio.fixture(loop_scope="session")
async def client(harness: Harness) -> BareClient:
    """A stranger's connection to the node of one of the two."""
    return (await harness.login(uuid.uuid4(), harness.nodes[1])).client


async def still_works(client: BareClient) -> None:
    """The connection has nothing more to say about what was refused, and answers the next request."""
    room = str(uuid.uuid4())
    await client.send("join", id="after", room=room)
    await client.expect("error", id="after", code="room_not_found", room=room)


# --- frames ---


def frame(kind: object, **fields: Any) -> str:
    return json.dumps({"type": kind, "id": "7", "room": ROOM, **fields})


NOT_A_FRAME = {
    "empty": "",
    "not JSON": "hello",
    "cut short": frame("typing")[:-1],
    "two at once": frame("typing") * 2,
    "a byte order mark": "\ufeff" + frame("typing"),
    "single quotes": frame("typing").replace('"', "'"),
    "no number": '{"type": "signal", "id": "7", "room": "r", "data": NaN}',
    "nested too deeply": '{"type": "signal", "data": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "an array": "[" + frame("typing") + "]",
    "a string": '"typing"',
    "a number": "4400",
    "null": "null",
}

WRONG_FIELDS = {
    "no type": '{"id": "7"}',
    "a type that is no string": frame(7),
    "an unknown field": frame("join", rooms=[]),
    "a field of another type": frame("typing", text="hello"),
    "null for nothing": frame("signal", data={}, stream=None, n=None),
    "no room": '{"type": "join", "id": "7"}',
    "a room that is a number": frame("join", room=7),
    "a room that is too short": frame("join", room="7d3c2a52"),
    "no text": frame("chat"),
    "empty text": frame("chat", text=""),
    "text that is too long": frame("chat", text="x" * 501),
    "text that is no string": frame("chat", text=["hello"]),
    "no action": frame("mode"),
    "an unknown action": frame("mode", action="toggle"),
    "no data": frame("signal"),
    "a stream without a number": frame("signal", data={}, stream="s"),
    "a number without a stream": frame("signal", data={}, n=1),
    "an empty stream": frame("signal", data={}, stream="", n=1),
    "a stream that is too long": frame("signal", data={}, stream="s" * 65, n=1),
    "number zero": frame("signal", data={}, stream="s", n=0),
    "a fraction": frame("signal", data={}, stream="s", n=1.5),
    "a number beyond 2^53": frame("signal", data={}, stream="s", n=2**53),
    "a number of digits": frame("ack", stream="s", n="1"),
    "an ack of nothing": frame("ack"),
    "a second hello": '{"type": "hello", "id": "7", "token": "t"}',
}

WRONG_IDS = {"beyond 2^53": 2**53, "empty": "", "too long": "7" * 65, "null": None, "an object": {}}


@pytest.mark.parametrize("text", NOT_A_FRAME.values(), ids=NOT_A_FRAME)
async def test_what_is_no_frame_is_refused(client: BareClient, text: str) -> None:
    await client.send_text(text)
    error = await client.expect("error", code="bad_request")
    assert error.keys() <= {"type", "code", "message"}
    await still_works(client)


@pytest.mark.parametrize("text", WRONG_FIELDS.values(), ids=WRONG_FIELDS)
async def test_a_frame_with_missing_or_wrong_fields_is_refused(client: BareClient, text: str) -> None:
    await client.send_text(text)
    await client.expect("error", code="bad_request", id="7")
    await still_works(client)


@pytest.mark.parametrize("wrong", WRONG_IDS.values(), ids=WRONG_IDS)
async def test_a_wrong_id_is_refused_and_not_repeated(client: BareClient, wrong: object) -> None:
    await client.send("join", id=wrong, room=ROOM)
    error = await client.expect("error", code="bad_request", room=ROOM)
    assert "id" not in error
    await still_works(client)


@pytest.mark.parametrize("kind", ["dance", "", "Join", "peer", "ended", "welcome", "x" * 1_000])
async def test_an_unknown_type_is_refused_as_such(client: BareClient, kind: str) -> None:
    await client.send(kind, id="7", room=ROOM)
    await client.expect("error", code="unknown_type", id="7", room=ROOM)
    await still_works(client)


async def test_ten_bad_frames_are_enough(client: BareClient) -> None:
    for number in range(BAD_FRAMES + 2):
        await client.send_text("[]" if number % 2 else '{"type": "dance"}')
    errors, code = await client.rest()
    assert [error["code"] for error in errors] == ["unknown_type", "bad_request"] * (BAD_FRAMES // 2)
    assert code == 4400


async def test_equal_keys_cannot_make_a_frame_of_the_server(harness: Harness) -> None:
    """One reader of JSON takes the first of two equal keys, another the last: the peer must see neither twice."""
    call = await harness.call()
    alice, bob = call.clients
    signal, ended = f'"type": "signal", "room": "{call.room}", "data": 1', '"type": "ended"'
    for text in (f"{{{ended}, {signal}}}", f"{{{signal}, {ended}}}"):
        await alice.send_text(text)
        assert (await alice.expect("error"))["code"] in ("bad_request", "unknown_type")
    await alice.send_text(f'{{{signal}, "data": {{"type": "ended"}}}}')
    forwarded = await bob.websocket.recv(decode=True)
    assert json.loads(forwarded, object_pairs_hook=list) == [
        ("type", "signal"),
        ("room", call.room),
        ("data", [("type", "ended")]),
    ]
    await call.goes_on()


# --- rooms ---

REQUESTS: dict[str, dict[str, Any]] = {
    "signal": {"data": {"app": "hello"}},
    "ack": {"stream": "s", "n": 1},
    "typing": {},
    "chat": {"text": "hello"},
    "mode": {"action": "request"},
    "leave": {},
    "end": {},
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_nothing_can_be_done_in_a_room_of_others(client: BareClient, call: Call, kind: str) -> None:
    await client.refused("not_a_member", kind, room=call.room, **REQUESTS[kind])
    await still_works(client)


async def test_a_third_user_is_not_let_in_and_learns_nothing(
    harness: Harness, client: BareClient, call: Call
) -> None:
    refused = await client.refused("not_a_member", "join", room=call.room)
    for secret in (call.alice.user, call.bob.user, call.alice.welcome["session"], "video", "active"):
        assert str(secret) not in json.dumps(refused)
    ended = await harness.call()
    await ended.alice.client.ask("end", "ok", room=ended.room)
    await client.refused("not_a_member", "join", room=ended.room)
    await still_works(client)


@pytest.mark.parametrize("room", [ROOM, "x" * 36, "{p00}:room:*\n" + "é" * 23])
async def test_a_room_that_does_not_exist_is_not_found(client: BareClient, room: str) -> None:
    await client.refused("room_not_found", "join", room=room)
    await client.refused("not_a_member", "chat", room=room, text="hello")
    await still_works(client)


async def test_a_room_that_has_ended_is_over_for_its_members(harness: Harness) -> None:
    over = await harness.call()
    await harness.cluster.end_room(over.room)
    for member in (over.alice, over.bob):
        await member.client.expect("ended", room=over.room, reason="deleted")
        refused = [await member.client.refused("room_ended", "join", room=over.room)]
        for kind, fields in REQUESTS.items():
            refused.append(await member.client.refused("room_ended", kind, room=over.room, **fields))
        again = (await harness.login(member.user, harness.nodes[1])).client
        refused.append(await again.refused("room_ended", "join", room=over.room))
        assert {frame.get("reason") for frame in refused} == {"deleted"}


async def test_a_connection_holds_only_so_many_rooms(harness: Harness) -> None:
    user = uuid.uuid4()
    rooms = [(await harness.cluster.open_room(user, uuid.uuid4()))["room_id"] for _ in range(17)]
    client = (await harness.login(user, harness.nodes[1])).client
    for room in rooms[:16]:
        await client.ask("join", "joined", room=room)
    await client.refused("bad_request", "join", room=rooms[16])
    await client.ask("leave", "ok", room=rooms[0])
    await client.ask("join", "joined", room=rooms[16])


# --- tokens ---

KEY = generate_private_key(SECP256R1())


def signed(secret: Any, algorithm: str = "HS256", **changes: Any) -> str:
    """A token that is good but for what is changed; None leaves a claim out."""
    now = int(time.time())
    claims = {"sub": changes.pop("user"), "iat": now, "exp": now + 600} | changes
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None}, secret, algorithm=algorithm
    )


BAD_TOKENS: dict[str, Callable[[str, str], Any]] = {
    "white space": lambda user, secret: " \n",
    "malformed": lambda user, secret: "not.a.token",
    "one part": lambda user, secret: "token",
    "cut short": lambda user, secret: signed(secret, user=user)[:-4],
    "expired": lambda user, secret: signed(secret, user=user, exp=int(time.time()) - 60),
    "not valid yet": lambda user, secret: signed(secret, user=user, nbf=int(time.time()) + 600),
    "without an end": lambda user, secret: signed(secret, user=user, exp=None),
    "of nobody": lambda user, secret: signed(secret, user=None),
    "of no UUID": lambda user, secret: signed(secret, user="alice"),
    "signed by someone else": lambda user, secret: signed("another secret, also 32 bytes long", user=user),
    "signed by nobody": lambda user, secret: signed(None, "none", user=user),
    "HS512": lambda user, secret: signed(secret, "HS512", user=user),
    "ES256": lambda user, secret: signed(KEY, "ES256", user=user),
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS)
async def test_a_bad_token_lets_nobody_in(
    harness: Harness, call: Call, make: Callable[[str, str], Any]
) -> None:
    """It names a user who is in a call, and does not disturb that one either."""
    token = make(str(call.bob.user), harness.cluster.line["auth_secret"])
    client = await harness.connect(harness.nodes[1])
    await client.send("hello", id="1", token=token, resume=call.bob.welcome["resume"])
    await client.expect("error", id="1", code="unauthorized")
    assert await client.closed() == 4401


BAD_HELLOS = {
    "an empty token": ("$.token", {"token": ""}),
    "a number as token": ("$.token", {"token": 7}),
    "a token of over 4 KiB": ("$.token", {"token": "x" * 4_097}),
    "no token": ("token", {}),
    "null as secret": ("$.resume", {"token": "x", "resume": None}),
    "a field too many": ("room", {"token": "x", "room": ROOM}),
}


@pytest.mark.parametrize(("field", "fields"), BAD_HELLOS.values(), ids=BAD_HELLOS)
async def test_a_hello_that_is_ill_formed_is_told_which_field(
    harness: Harness, field: str, fields: dict[str, Any]
) -> None:
    client = await harness.connect(harness.nodes[1])
    await client.send("hello", id=1, **fields)
    error = await client.expect("error", id=1, code="bad_request")
    assert field in error["message"]
    assert await client.closed() == 4400


async def test_a_hello_with_a_number_as_id_and_a_newline_behind_its_token_is_welcome(
    harness: Harness,
) -> None:
    client = await harness.connect(harness.nodes[1])
    await client.send("hello", id=1, token=harness.cluster.token(uuid.uuid4()) + "\n")
    await client.expect("welcome", id=1)


async def test_a_room_may_be_named_in_upper_case(harness: Harness) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    room = (await harness.cluster.open_room(alice, bob))["room_id"]
    (one, other) = [
        (await harness.login(user, node)).client for user, node in ((alice, 0), (bob, harness.nodes[1]))
    ]
    joined = await one.ask("join", "joined", room=room.upper())
    assert joined["room"]["room_id"] == room
    await other.ask("join", "joined", room=room.upper())
    await one.expect("peer", room=room, state="joined")
    await one.send("signal", room=room.upper(), data=1)
    await other.expect("signal", room=room, data=1)
    await one.ask("chat", "ok", room=room.upper(), text="HELLO")
    await other.expect("chat", room=room)
    await one.ask("end", "ok", room=room.upper())


async def test_ten_mistakes_of_a_user_end_no_call(harness: Harness) -> None:
    call = await harness.call()
    for text in ["x" * 501, "cut \ud83d"] * 10:
        await call.alice.client.send_text(
            json.dumps({"type": "chat", "id": 7, "room": call.room, "text": text})
        )
        await call.alice.client.expect("error", code="bad_request", id=7, room=call.room)
    await call.alice.client.ask("chat", "ok", room=call.room, text="sorry")


@pytest.mark.parametrize("text", [frame("join"), frame("signal", data={}), frame("dance")])
async def test_nothing_is_done_before_a_hello_with_a_token(harness: Harness, text: str) -> None:
    client = await harness.connect(harness.nodes[1])
    await client.send_text(text)
    await client.expect("error", id="7", code="unauthorized")
    assert await client.closed() == 4401


async def test_what_follows_a_bad_token_is_not_looked_at(harness: Harness, call: Call) -> None:
    client = await harness.connect(harness.nodes[1])
    await client.send("hello", token="bad")
    await client.send("join", room=call.room)
    await client.send("end", room=call.room)
    await client.expect("error", code="unauthorized")
    assert await client.closed() == 4401

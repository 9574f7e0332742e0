"""Connections that misbehave below or beside the protocol: each is closed as documented, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.frames import Opcode

from tests.acceptance.clients.raw_client import RawClient, websocket_frame
from tests.acceptance.harness import PLACEMENTS, Call, Harness, Placement
from tests.helpers.cluster import Cluster
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

LARGEST = 65_536
NARROW = 65_536
HANDSHAKE = (
    "GET /v1 HTTP/1.1\r\nHost: keepline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: keepline.v1\r\n\r\n"
)


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


async def raw_login(harness: Harness, user: uuid.UUID, **options: int) -> RawClient:
    """A connection to the node of one of the two that has said hello, its welcome still unread."""
    client = await harness.connect_raw(harness.nodes[1], **options)
    await client.handshake()
    await client.send({"type": "hello", "token": harness.cluster.token(user)})
    return client


# --- framing ---

TYPING = json.dumps({"type": "typing", "room": str(uuid.uuid4())}).encode()
UMLAUT = '{"type": "dance", "id": "ü"}'.encode()

BAD_MESSAGES = {
    "binary": websocket_frame(Opcode.BINARY, TYPING),
    "empty binary": websocket_frame(Opcode.BINARY, b""),
    "not UTF-8": websocket_frame(Opcode.TEXT, b'{"type": "typing", "id": "\xff"}'),
    "half a character": websocket_frame(Opcode.TEXT, UMLAUT[:26]),
    "fragmented binary": websocket_frame(Opcode.BINARY, TYPING, fin=False)
    + websocket_frame(Opcode.CONT, TYPING),
    "not UTF-8 in fragments": websocket_frame(Opcode.TEXT, b"\xc3", fin=False)
    + websocket_frame(Opcode.CONT, b"\x28"),
}

BROKEN_FRAMING = {
    "not masked": websocket_frame(Opcode.TEXT, TYPING, mask=False),
    "compressed without leave": b"\xc1" + websocket_frame(Opcode.TEXT, TYPING)[1:],
    "a continuation of nothing": websocket_frame(Opcode.CONT, TYPING),
    "a message within a message": websocket_frame(Opcode.TEXT, TYPING, fin=False)
    + websocket_frame(Opcode.TEXT, TYPING),
    "an unknown kind of frame": b"\x83\x80\0\0\0\0",
    "a ping in fragments": b"\x09\x80\0\0\0\0",
    "a ping that is too long": b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126),
    "a close of one byte": b"\x88\x81\0\0\0\0\x03",
}

TOO_LARGE = {
    "in one frame": websocket_frame(Opcode.TEXT, b" " * (LARGEST + 1)),
    "in fragments": websocket_frame(Opcode.TEXT, b" " * LARGEST, fin=False)
    + websocket_frame(Opcode.CONT, b" "),
    "announced": b"\x81\xff" + struct.pack(">Q", 2**62) + bytes(4),
}


@pytest.mark.parametrize("message", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_a_message_that_is_no_text_closes_the_connection(harness: Harness, message: bytes) -> None:
    client = await raw_login(harness, uuid.uuid4())
    await client.write(message)
    frames, code = await client.rest()
    assert (len(frames), code) in [(0, 4400), (1, 4400)], "the welcome may or may not have been on its way"


@pytest.mark.parametrize("data", BROKEN_FRAMING.values(), ids=BROKEN_FRAMING)
async def test_broken_framing_closes_the_connection(harness: Harness, data: bytes) -> None:
    client = await raw_login(harness, uuid.uuid4())
    await client.write(data)
    _, code = await client.rest()
    assert code == 1002


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_frame_that_is_too_large_closes_the_connection(harness: Harness, data: bytes) -> None:
    client = await raw_login(harness, uuid.uuid4())
    await client.write(data)
    frames, code = await client.rest()
    assert (frames[-1]["type"], frames[-1]["code"], code) == ("error", "too_large", 4413)


async def test_the_largest_frame_arrives(harness: Harness) -> None:
    call = await harness.call()
    start, end = f'{{"type":"signal","room":"{call.room}","data":"', '"}'
    text = start + "x" * (LARGEST - len(start) - len(end)) + end
    await call.alice.client.send_text(text)
    assert await call.bob.client.websocket.recv(decode=True) == text


async def test_a_text_in_fragments_is_one_text(harness: Harness) -> None:
    client = await harness.connect_raw(harness.nodes[1])
    await client.handshake()
    user = uuid.uuid4()
    hello = json.dumps({"type": "hello", "id": "ü", "token": harness.cluster.token(user)}, ensure_ascii=False)
    text = hello.encode()
    pieces = [text[at : at + 1] for at in range(60)] + [text[60:]]  # more would be more than the burst
    fragments = [
        websocket_frame(Opcode.CONT if at else Opcode.TEXT, piece, fin=at == len(pieces) - 1)
        for at, piece in enumerate(pieces)
    ]
    ping = websocket_frame(Opcode.PING, b"in between")
    await client.write(ping.join(fragments))
    (welcome,) = await client.receive(1)
    assert (welcome["id"], welcome["user"]) == ("ü", str(user))


# --- the handshake ---

REFUSED = {
    "another path": (HANDSHAKE.replace("/v1", "/v2"), 404),
    "no path": (HANDSHAKE.replace("/v1", "/"), 404),
    "no subprotocol": (HANDSHAKE.replace("Sec-WebSocket-Protocol: keepline.v1\r\n", ""), 400),
    "another subprotocol": (HANDSHAKE.replace("keepline.v1", "chat"), 400),
    "no upgrade": ("GET /v1 HTTP/1.1\r\nHost: keepline\r\n\r\n", 426),
    "another version": (HANDSHAKE.replace("Version: 13", "Version: 8"), 400),
    "no key": (HANDSHAKE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
    "another method": (HANDSHAKE.replace("GET", "POST"), 405),
    "a long header": (HANDSHAKE.replace("keepline\r\n", "k" * 10_000 + "\r\n", 1), 431),
    "too many headers": (HANDSHAKE.replace("Host:", "X: y\r\n" * 1_000 + "Host:"), 431),
}

GARBAGE = {
    "another protocol": b"EHLO keepline\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    "an endless line": b"GET /v1" + b"x" * 100_000,
    "frames": websocket_frame(Opcode.TEXT, TYPING) + b"\r\n" * 4,
}


@pytest.mark.parametrize(("request_text", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_handshake_of_ours_is_refused_in_http(
    harness: Harness, request_text: str, status: int
) -> None:
    client = await harness.connect_raw(harness.nodes[1])
    await client.write(request_text.encode("latin-1"))
    answer = await client.answer()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_not_even_http_gets_no_websocket(harness: Harness, garbage: bytes) -> None:
    client = await harness.connect_raw(harness.nodes[1])
    await client.write(garbage)
    answer = await client.answer()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://app.example", "null", "https://a.b.preview.example"]
)
async def test_other_origins_are_refused(harness: Harness, origin: str) -> None:
    client = await harness.connect(harness.nodes[1], origin=origin)
    assert await client.closed() == 4403


@pytest.mark.parametrize(
    "origin",
    ["https://app.example", "https://APP.example:443", "https://a.preview.example", "capacitor://localhost"],
)
async def test_a_listed_origin_is_let_in(harness: Harness, origin: str) -> None:
    await harness.login(uuid.uuid4(), harness.nodes[1], origin=origin)


# --- time and quantity ---


async def test_who_does_not_say_hello_in_time_is_closed(harness: Harness) -> None:
    node = harness.nodes[1]
    silent = await harness.connect(node)
    unfinished, speechless = await harness.connect_raw(node), await harness.connect_raw(node)
    await unfinished.write(HANDSHAKE[:60].encode())
    half = await harness.connect_raw(node)
    await half.handshake()
    await half.write(websocket_frame(Opcode.TEXT, b'{"type": "hello"', fin=False))
    assert await asyncio.gather(silent.closed(), half.rest(), unfinished.answer(), speechless.answer()) == [
        4408,
        ([], 4408),
        b"",
        b"",
    ]


async def test_who_sends_too_much_is_warned_and_closed(harness: Harness) -> None:
    user = uuid.uuid4()
    room = (await harness.cluster.open_room(user, uuid.uuid4()))["room_id"]
    member = await harness.login(user, harness.nodes[1])
    await member.client.ask("join", "joined", room=room)
    member.client.websocket.transport.write(
        websocket_frame(Opcode.TEXT, json.dumps({"type": "typing", "room": room}).encode()) * 1_000
    )
    errors, code = await member.client.rest()
    assert code == 4429
    assert {error["code"] for error in errors} == {"rate_limited"}
    assert all("id" not in error and 0 <= error["retry_after_ms"] <= 20 for error in errors)
    assert len(errors) == 10


async def test_who_does_not_wait_for_the_welcome_is_closed(harness: Harness) -> None:
    client = await harness.connect_raw(harness.nodes[1])
    await client.handshake()
    hello = {"type": "hello", "token": harness.cluster.token(uuid.uuid4())}
    await client.send(hello, *({"type": "join", "room": str(uuid.uuid4())} for _ in range(65)))
    assert await client.rest() == ([], 4429)


async def test_sixty_four_frames_may_follow_hello_at_once(harness: Harness) -> None:
    client = await harness.connect_raw(harness.nodes[1])
    await client.handshake()
    hello = {"type": "hello", "token": harness.cluster.token(uuid.uuid4())}
    joins = [{"type": "join", "id": f"{n}", "room": str(uuid.uuid4())} for n in range(64)]
    await client.send(hello, *joins)
    frames = await client.receive(65)
    assert frames[0]["type"] == "welcome"
    assert {frame["id"] for frame in frames[1:]} == {join["id"] for join in joins}


async def test_who_reads_slowly_keeps_the_call_and_its_peer_waits(harness: Harness, call: Call) -> None:
    alice, bob = uuid.uuid4(), uuid.uuid4()
    room = (await harness.cluster.open_room(alice, bob))["room_id"]
    slow = await raw_login(harness, bob, receive_buffer_bytes=NARROW)
    await slow.send({"type": "join", "room": room})
    sender = (await harness.login(alice, harness.nodes[0])).client
    joined = await sender.ask("join", "joined", room=room)
    if joined["peer"] != "joined":
        await sender.expect("peer", room=room, state="joined")
    count = 0
    refusal = None
    while refusal is None:
        count += 1
        await sender.send("signal", room=room, stream="s", n=count, data="x" * 60_000)
        refusal = await sender.receive_within(0.02)
        assert count < 200, "much more than fits into the buffers on the way"
    assert (refusal["code"], refusal["room"], refusal["retry_after_ms"]) == ("rate_limited", room, 1_000)
    await call.goes_on(mark="others have not noticed")

    frames = await slow.receive_until(lambda frame: frame.get("n") == 1)
    assert [frame["type"] for frame in frames[:2]] == ["welcome", "joined"]

    reading = asyncio.create_task(slow.receive_until(lambda frame: frame.get("stream") == "t"))

    async def arrives() -> bool:
        await sender.send("signal", room=room, stream="t", n=1, data="still there")
        return reading.done()

    await eventually(arrives, timeout=10.0, interval=0.3, what="whoever has read hears the peer again")
    await reading

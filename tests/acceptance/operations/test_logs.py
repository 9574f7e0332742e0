"""What all programs log of a call at the lowest level: enough to follow it over nodes, and no words of the callers."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import asyncpg

from signal_node.limits.addresses import address_hash
from tests.acceptance.harness import ON_TWO_NODES, Call, Harness, Member
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually

SAID = "marker-of-the-chat"
DESCRIBED = "marker-of-the-description"
TURN_SECRET = "marker-of-the-turn-secret"
WRONG_KEY = "marker-of-a-wrong-key"
BROKEN = "marker-of-a-broken-frame"

ENVIRONMENT = {
    "KEEPLINE_LOG_LEVEL": "debug",
    "KEEPLINE_LOG_FORMAT": "json",
    "KEEPLINE_ORIGINS": "https://app.example",
    "KEEPLINE_TURN_URLS": "turn:turn.example:3478",
    "KEEPLINE_TURN_SECRET": TURN_SECRET,
}

REFUSE = f"ALTER TABLE active_rooms ADD CHECK (messages::text NOT LIKE '%{SAID}%')"
"""Postgres words the refusal with the whole row in its detail."""


def logs(fleet: Fleet) -> dict[str, str]:
    programs = (*fleet.programs, *fleet.persister_programs)
    return {program.command.name: Path(program.command.log).read_text() for program in programs}


def events(fleet: Fleet) -> list[dict[str, Any]]:
    """What was logged, by all programs, in the order of the clock."""
    lines = [json.loads(line) for text in logs(fleet).values() for line in text.splitlines()]
    return sorted(lines, key=lambda line: line["at"])


async def misbehave(harness: Harness, call: Call) -> list[str]:
    """Try a bad token, a wrong key and broken frames; returns what must not be told of it."""
    token = harness.cluster.token(uuid.uuid4()) + "x"
    stranger = await harness.connect()
    await stranger.send("hello", token=token)
    await stranger.expect("error", code="unauthorized")
    await call.alice.client.send_text(f"{BROKEN} no JSON")
    await call.alice.client.send_text(json.dumps({"type": BROKEN, "room": call.room}))
    await call.alice.client.send_text(json.dumps({"type": "chat", "room": call.room, "text": [BROKEN]}))
    for _ in range(3):
        await call.alice.client.expect("error")
    async with harness.cluster.http.get(
        f"{harness.cluster.nodes[0].ws.replace('ws', 'http', 1)}/{BROKEN}"
    ) as response:
        assert response.status == 404
    page = await harness.connect(origin="https://evil.example")
    assert await page.closed() == 4403
    headers = {"Authorization": f"Bearer {WRONG_KEY}"}
    url = f"{harness.cluster.nodes[0].http}/v1/rooms/{call.room}"
    async with harness.cluster.http.get(url, headers=headers) as response:
        assert response.status == 401
    return [token, token.rpartition(".")[2], WRONG_KEY, BROKEN]


async def talk(call: Call) -> None:
    """A description, a candidate and a line of chat that Postgres will refuse."""
    for data in (
        {"description": {"type": "offer", "sdp": f"v=0\r\ns={DESCRIBED}\r\n" * 40}},
        {"candidate": {"candidate": f"candidate:{DESCRIBED}", "sdpMid": "0"}},
    ):
        await call.alice.client.send("signal", room=call.room, data=data)
        await call.bob.client.expect("signal", room=call.room)
    await call.alice.client.ask("chat", "ok", room=call.room, text=SAID)
    await call.bob.client.expect("chat", room=call.room)


async def reconnect(harness: Harness, call: Call) -> Member:
    """Bob's connection breaks, and he resumes on Alice's node."""
    call.bob.client.cut()
    await call.alice.client.expect("peer", room=call.room, state="reconnecting")
    again = await harness.login(call.bob.user, 0, resume=call.bob.welcome["resume"])
    await call.alice.client.expect("peer", room=call.room, state="reconnected")
    return again


async def test_logs_follow_a_call_over_nodes_and_tell_no_secret() -> None:
    async with (
        running_fleet(nodes=2, environ=ENVIRONMENT) as fleet,
        Harness(fleet, ON_TWO_NODES) as harness,
    ):
        connection = await asyncpg.connect(fleet.database_url)
        await connection.execute(REFUSE)
        await connection.close()
        call = await harness.call()
        await talk(call)
        secrets = await misbehave(harness, call)
        again = await reconnect(harness, call)
        await call.alice.client.ask("end", "ok", room=call.room)
        members = (call.alice, call.bob, again)
        secrets += [member.welcome["resume"] for member in members]
        secrets += [
            server["credential"]
            for m in members
            for server in m.welcome["ice_servers"]
            if "credential" in server
        ]
        secrets += [fleet.token(member.user).split(".")[0] for member in members]
        secrets += [fleet.line["auth_secret"], fleet.line["service_key"], TURN_SECRET, SAID, DESCRIBED]

        def buried() -> bool:
            return any(event["event"] == "dead_letter" for event in events(fleet))

        await eventually(buried, timeout=20.0, what="the persister has given up on the room")
        await asyncio.gather(*(program.stop() for program in (*fleet.programs, *fleet.persister_programs)))

        for name, text in logs(fleet).items():
            told = [secret for secret in secrets if secret in text]
            assert not told, f"{name} tells {told}"
        check_the_story(fleet, call, again)


def check_the_story(fleet: Fleet, call: Call, again: Member) -> None:
    about_it = [event for event in events(fleet) if event.get("room") == call.room]
    assert {event["event"] for event in about_it if "worker" in event} == {"dead_letter"}
    # In the order of the record: a node may write its line after another one has made the next version.
    story = sorted(
        (event for event in about_it if "node" in event), key=lambda event: event.get("version", 1)
    )
    one, two = fleet.nodes[0].id, fleet.nodes[1].id
    assert [(event["event"], event["node"]) for event in story] == [
        ("room_opened", one),
        ("side_joined", one),
        ("side_joined", two),
        ("side_lost", two),
        ("side_joined", one),
        ("room_ended", one),
    ]
    assert [event["session"] for event in story if event["event"] == "side_joined"] == [
        member.welcome["session"] for member in (call.alice, call.bob, again)
    ]
    assert story[-1]["reason"] == "hangup"
    turned_away = {event["event"]: event for event in events(fleet) if "unlogged" in event}
    assert turned_away.keys() == {"token_refused", "handshake_refused", "origin_refused"}
    assert {event["address_hash"] for event in turned_away.values()} == {address_hash("127.0.0.1")}
    assert turned_away["token_refused"]["reason"] == "the token's signature is wrong"
    assert turned_away["handshake_refused"]["reason"] == "wrong path"
    assert turned_away["origin_refused"]["origin"] == "https://evil.example"
    for event in events(fleet):
        assert {"event", "level", "logger", "at"} <= event.keys(), event
        assert ("node" in event) is not ("worker" in event), event

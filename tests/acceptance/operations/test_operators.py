"""The commands that look after a running cluster, over real nodes, Valkey and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from keepline.cli.base.errors import CommandError
from keepline.cli.cluster import doctor
from keepline.cli.main import app
from keepline.room import keys
from tests.acceptance.harness import Call, Harness
from tests.helpers.commands import keepline
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDP = "v=0\r\n" * 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_fleet() -> AsyncIterator[Fleet]:
    """Two nodes that give absent sides a minute."""
    async with running_fleet(nodes=2, environ={"KEEPLINE_GRACE_SECONDS": "60"}) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared_fleet: Fleet) -> AsyncIterator[Fleet]:
    """The fleet; a test may kill node 1."""
    yield shared_fleet
    await shared_fleet.restart_unless_ready(1)


def of(fleet: Fleet) -> dict[str, str]:
    """The environment that leads a command to the fleet."""
    return {
        "REDIS_URL": fleet.redis_url,
        "DATABASE_URL": fleet.database_url,
        "KEEPLINE_SERVICE_KEY": fleet.line["service_key"],
    }


async def told(fleet: Fleet, *arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON, run in this process for speed; its exit code has to be as expected."""
    done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"], env=of(fleet))
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


async def states(fleet: Fleet) -> dict[str, str]:
    """The states of the nodes, as `status` has them."""
    return {node["node"]: node["state"] for node in (await told(fleet, "status"))["nodes"]}


async def drains(fleet: Fleet, node: str) -> bool:
    return (await states(fleet))[node] in ("draining", "drained")


async def negotiate(call: Call) -> None:
    """What browsers do when a call begins, as far as the cluster sees it."""
    for sender, receiver, kind in ((call.alice, call.bob, "offer"), (call.bob, call.alice, "answer")):
        signals = [
            {"description": {"type": kind, "sdp": SDP}},
            *({"candidate": {"candidate": "c"}} for _ in range(3)),
        ]
        for data in signals:
            await sender.client.send("signal", room=call.room, data=data)
            await receiver.client.expect("signal", room=call.room)


# --- bench ---


async def test_a_measurement_leaves_nothing_behind(fleet: Fleet) -> None:
    environ = {**of(fleet), "KEEPLINE_AUTH_SECRET": fleet.line["auth_secret"]}
    done = await keepline("bench", "--calls", "4", "--rate", "80", "--seconds", "1", "--json", **environ)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["calls"], found["lost"]) == (4, 0)
    assert 60 <= found["sent"] == found["received"] <= 80
    assert found["one_node_ms"]["count"] + found["two_nodes_ms"]["count"] == found["sent"]
    assert found["connect_ms"]["count"] == 8
    connection = await asyncpg.connect(fleet.database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM users") == 0
        assert await connection.fetchval("SELECT count(*) FROM active_rooms") == 0
    finally:
        await connection.close()
    table = await keepline("bench", "--calls", "1", "--rate", "10", "--seconds", "1", "--no-users", **environ)
    assert "signals on one node" in table.stdout
    assert "none lost" in table.stdout


async def test_a_measurement_says_what_it_needs(fleet: Fleet) -> None:
    environ = {**of(fleet), "KEEPLINE_AUTH_SECRET": fleet.line["auth_secret"]}
    without = await keepline("bench", **{**environ, "DATABASE_URL": ""})
    assert (without.code, "set DATABASE_URL" in without.stderr) == (2, True)
    refused = await keepline(
        "bench",
        "--calls",
        "1",
        "--rate",
        "10",
        "--seconds",
        "1",
        **{**environ, "KEEPLINE_AUTH_SECRET": "k" * 32},
    )
    assert (refused.code, "refuses a client" in refused.stderr) == (1, True)


# --- check ---


async def test_delivery_is_checked_and_the_history_can_be_checked_again(fleet: Fleet, tmp_path: Path) -> None:
    environ = {**of(fleet), "KEEPLINE_AUTH_SECRET": fleet.line["auth_secret"]}
    kept = tmp_path / "history.jsonl"
    run = ("check", "--calls", "3", "--signals", "10", "--lines", "3", "--seconds", "2")
    done = await keepline(*run, "--history", str(kept), "--json", **environ)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["acknowledged_signals"] == found["signals"] > 30
    assert found["acknowledged_lines"] == found["lines"] > 9

    again = await keepline("check", "--read", str(kept))
    assert (again.code, "no promise broken" in again.stdout) == (0, True), again.stdout
    entries = kept.read_text().splitlines()
    received = next(number for number, entry in enumerate(entries) if '"f": "receive"' in entry)
    kept.write_text("\n".join(entries[:received] + entries[received + 1 :]))
    broken = await keepline("check", "--read", str(kept))
    assert (broken.code, "have not arrived" in broken.stdout) == (1, True), broken.stdout
    kept.write_text("not a history")
    assert (await keepline("check", "--read", str(kept))).code == 2


# --- status ---


async def test_status_of_a_healthy_cluster(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        await harness.call()

        async def shown() -> bool:
            found = await told(fleet, "status")
            assert found["problems"] == []
            loads = {
                node["node"]: (node["state"], node["sessions"], node["rooms"]) for node in found["nodes"]
            }
            assert loads == {"node-1": ("ready", 1, 1), "node-2": ("ready", 1, 1)}
            counts = [
                row["rooms"]
                for row in found["rooms"]
                if (row["status"], row["chat_mode"]) == ("active", "video")
            ]
            return counts == [1]

        await eventually(shown, interval=0.3)
    table = await keepline("status", **of(fleet))
    assert table.code == 0
    assert "node-1" in table.stdout
    assert "wait for Postgres" in table.stdout
    assert fleet.line["service_key"] not in table.stdout + table.stderr


async def test_status_is_shown_again_and_again_until_ctrl_c(fleet: Fleet) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "keepline.cli.main", "status", "--watch", "--json"),
        env={**os.environ, **of(fleet)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            shown = [json.loads(await process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert shown[1]["at"] - shown[0]["at"] >= 2_000
    assert (process.returncode, stderr) == (130, b"")


async def test_redis_away_is_said_without_its_password() -> None:
    url = f"redis://operator:hidden-word@127.0.0.1:{free_port()}"
    status = await keepline("status", REDIS_URL=url)
    assert (status.code, "is it running" in status.stdout) == (1, True)
    for command in (["rooms"], ["doctor"], ["drain", "node-1"]):
        done = await keepline(*command, REDIS_URL=url)
        assert (done.code, "is it running" in done.stderr) == (1, True), done
        assert "Traceback" not in done.stderr
        assert "hidden-word" not in done.stdout + done.stderr + status.stdout


async def test_what_is_missing_from_the_environment_is_said() -> None:
    done = await keepline("status", REDIS_URL="")
    assert done.code == 2
    assert "set REDIS_URL" in done.stderr


# --- drain ---


async def test_a_node_is_drained_and_taken_back(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        drained = await told(fleet, "drain", "node-2", "--wait", "--seconds", "2")
        assert (drained["state"], drained["sessions"]) == ("drained", 0)
        # The node says so with its next heartbeat.
        assert await eventually(lambda: drains(fleet, "node-2"), what="status shows the drain")
        frames, code = await call.bob.client.rest()
        assert ([frame["type"] for frame in frames], code) == (["goodbye"], 4503)
        undone = await keepline("drain", "node-2", "--undo", **of(fleet))
        assert (undone.code, undone.stdout) == (0, "node-2 is ready\n")
        assert await fleet.is_ready(1)


async def test_who_may_not_drain_and_what_cannot_be(fleet: Fleet) -> None:
    wrong = await keepline(
        "drain", "node-2", **{**of(fleet), "KEEPLINE_SERVICE_KEY": "not that of the nodes"}
    )
    assert wrong.code == 2
    assert "set KEEPLINE_SERVICE_KEY" in wrong.stderr
    unknown = await keepline("drain", "node-9", **of(fleet))
    assert unknown.code == CommandError.exit_code
    assert "there are node-1, node-2" in unknown.stderr
    assert await fleet.is_ready(1)


# --- rooms ---


async def test_rooms_are_filtered(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        video, text = await harness.call(), await harness.call(chat_mode="text")
        ended = await harness.call()
        await fleet.end_room(ended.room)

        async def ids(*options: str) -> set[str]:
            return {room["room_id"] for room in (await told(fleet, "rooms", *options))["rooms"]}

        assert await ids() >= {video.room, text.room}
        assert ended.room not in await ids()
        assert ended.room in await ids("--status", "ended")
        assert await ids("--mode", "text", "--node", "node-2") == {text.room}
        assert await ids("--user", str(video.alice.user)) == {video.room}
        assert await ids("--user", str(uuid.uuid4())) == set()
        assert video.room not in await ids("--older-than", "3600")
        limited = await told(fleet, "rooms", "--limit", "1")
        assert len(limited["rooms"]) == 1 < limited["total"]


async def test_one_room_side_by_side(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        await harness.stored(call.room)
        shown = await told(fleet, "rooms", call.room)
        assert [place["place"] for place in shown["places"]] == ["Redis", "Postgres", "node-1", "node-2"]
        assert shown["differences"] == []
        assert [place.get("here") for place in shown["places"]] == [None, None, [1], [2]]
        await in_postgres(
            fleet, "UPDATE active_rooms SET version = 1, chat_mode = 'text' WHERE room_id = $1", call.room
        )
        assert (await told(fleet, "rooms", call.room))["differences"] == ["version", "chat_mode"]
        table = await keepline("rooms", call.room, **of(fleet))
        assert "≠ version" in table.stdout
    for command in ("rooms", "trace"):
        nobody = await keepline(command, str(uuid.uuid4()), **of(fleet))
        assert (nobody.code, nobody.stdout, nobody.stderr.count("\n")) == (1, "", 1), nobody


async def in_postgres(fleet: Fleet, statement: str, *values: Any) -> None:
    """Change a row behind everybody's back."""
    connection = await asyncpg.connect(fleet.database_url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


# --- trace ---


async def test_a_trace_over_two_nodes_that_outlives_one(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        call = await harness.call()
        await negotiate(call)
        lines = (await told(fleet, "trace", call.room))["lines"]
        told_of = [(line["node"], line["side"], line["what"]) for line in lines]
        assert told_of == [
            ("node-1", None, "open"),
            ("node-1", 1, "join"),
            ("node-2", 2, "join"),
            ("node-1", 1, "offer"),
            ("node-1", 1, "candidate"),
            ("node-2", 2, "answer"),
            ("node-2", 2, "candidate"),
        ]
        assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)

        await fleet.programs[1].kill()
        call.bob = await harness.login(call.bob.user, 0, resume=call.bob.welcome["resume"])
        found = await told(fleet, "trace", call.room)
        told_of = [(line["node"], line["side"], line["what"]) for line in found["lines"]]
        assert told_of[:5] == [
            ("node-1", None, "open"),
            ("node-1", 1, "join"),
            ("node-2", 2, "join"),
            ("node-1", 1, "offer"),
            ("node-1", 1, "candidate"),
        ]
        assert set(told_of[5:]) == {("node-1", 2, "join"), ("node-1", 2, "resumed")}
        assert "node-2" in found["missing"]
        assert (await states(fleet))["node-2"] in ("silent", "dead")
        table = await keepline("trace", call.room, **of(fleet))
        assert "joined on node-1" in table.stdout
        assert "v=0" not in table.stdout
    nothing = await keepline("trace", str(uuid.uuid4()), **of(fleet))
    assert (nothing.code, "nothing is known" in nothing.stderr) == (1, True)


# --- doctor ---


async def planted(fleet: Fleet, healthy: Call) -> dict[str, set[str]]:
    """Do to Redis and Postgres what must not happen; where each kind is to be found."""
    record = json.loads(await fleet.redis.get(room_key(healthy.room)))
    places: dict[str, set[str]] = {}

    async def copy(**changes: Any) -> str:
        """A room that is only in Redis, made of the healthy one."""
        room_id = str(uuid.uuid4())
        await fleet.redis.set(room_key(room_id), json.dumps({**record, "room_id": room_id, **changes}))
        return room_id

    gone = str(uuid.uuid4())
    partition = keys.partition_of(gone, keys.DEFAULT_PARTITIONS)
    await fleet.redis.sadd(keys.held(partition, "node-9"), gone)
    places["orphan-held"] = {gone}
    await fleet.redis.zadd(keys.deadlines(partition), {gone: 9_000_000_000_000})
    places["orphan-deadline"] = {gone}
    user = str(uuid.uuid4())
    await fleet.redis.sadd(keys.user_rooms(user), gone)
    places["orphan-index"] = {f"user {user}"}
    holder = {"node": "node-1", "session": "0123456789abcdef", "resume": ""}
    await fleet.redis.set(keys.user(user), json.dumps(holder))
    places["ghost-user"] = {f"user {user}"}

    first, second = record["sides"]
    ghost = await copy(sides=[{**first, "session": "no-such-session1"}, {**second, "node": "node-9"}])
    places["ghost"] = places["missing-held"] = {ghost}
    absent = {**first, "node": None, "session": None}
    timeless = await copy(sides=[{**absent, "came": False}, {**absent, "came": False}], met_at=None)
    places["missing-deadline"] = {timeless}

    ended = await stored_room(fleet)
    await in_postgres(
        fleet, "UPDATE active_rooms SET version = 1, status = 'active' WHERE room_id = $1", ended
    )
    places["ended-in-redis-only"] = {ended}
    lost = str(uuid.uuid4())  # of a room that no node has had: nodes restore those that they remember
    await in_postgres(
        fleet,
        """INSERT INTO active_rooms
            SELECT (jsonb_populate_record(NULL::active_rooms, to_jsonb(room) || jsonb_build_object(
            'room_id', $2::text, 'status', 'active', 'ended_reason', NULL, 'ended_at', NULL))).*
            FROM active_rooms AS room WHERE room_id = $1""",
        ended,
        lost,
    )
    places["lost-in-redis"] = {lost}
    await fleet.redis.config_set("maxmemory-policy", "allkeys-lru")
    places["redis-setting"] = {"Redis"}
    return places


async def test_a_row_that_cannot_be_read_is_listed_and_said_to_be_damaged(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 0)) as harness:
        room = (await fleet.open_room(uuid.uuid4(), uuid.uuid4()))["room_id"]
        await harness.stored(room)
        await in_postgres(
            fleet,
            """UPDATE active_rooms SET version = 9, messages = '[{"seq": 1, "line": "?"}]' WHERE room_id = $1""",
            room,
        )
        found = (await told(fleet, "doctor", code=1))["found"]
        assert [one["kind"] for one in found if one["where"] == room] == ["lost-in-redis"]
        fixed = await keepline("doctor", "--fix", **of(fleet))
        assert "damaged" in fixed.stdout + fixed.stderr
        assert "Traceback" not in fixed.stdout + fixed.stderr
        await in_postgres(fleet, "DELETE FROM active_rooms WHERE room_id = $1", room)


async def test_that_no_persister_runs_is_told_as_soon_as_events_wait(fleet: Fleet) -> None:
    await fleet.persister_programs[0].kill()
    await fleet.redis.delete(keys.persisters())  # as when it has been silent for half a minute
    try:
        await fleet.open_room(uuid.uuid4(), uuid.uuid4())
        words = "events wait, and no persister has reported for 30 s"
        assert any(words in problem for problem in (await told(fleet, "status"))["problems"])
        found = (await told(fleet, "doctor", code=1))["found"]
        assert any(words in one["what"] for one in found if one["kind"] == "no-persister")
    finally:
        await fleet.persister_programs[0].start()
    await fleet.persister_programs[0].until_ready()

    async def well() -> bool:
        seen = await told(fleet, "status")
        return seen["problems"] == [] and list(seen["persisters"]) == ["persister-1"]

    await eventually(well, timeout=20.0, interval=0.5, what="the persister has caught up")


def room_key(room_id: str) -> str:
    """Where the record of a room is."""
    return keys.room(keys.partition_of(room_id, keys.DEFAULT_PARTITIONS), room_id)


async def stored_room(fleet: Fleet) -> str:
    """A room that has ended and is in Postgres."""
    opened = await fleet.open_room(uuid.uuid4(), uuid.uuid4())
    await fleet.end_room(opened["room_id"])

    async def written() -> bool:
        connection = await asyncpg.connect(fleet.database_url)
        try:
            status = await connection.fetchval(
                "SELECT status FROM active_rooms WHERE room_id = $1", opened["room_id"]
            )
        finally:
            await connection.close()
        return bool(status == "ended")

    await eventually(written, interval=0.1)
    return str(opened["room_id"])


@pytest.fixture
def hasty_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor who looks again after a second."""
    monkeypatch.setattr(doctor, "SETTLE_SECONDS", 1.0)


@pytest.mark.usefixtures("hasty_doctor")
async def test_every_disorder_is_found_and_put_right_and_a_healthy_room_is_not_touched(fleet: Fleet) -> None:
    async with Harness(fleet, (0, 1)) as harness:
        call, split = await harness.call(), await harness.call()
        await harness.stored(call.room)
        await harness.stored(split.room)
        before = await fleet.redis.get(room_key(call.room))
        places = await planted(fleet, call) | {"split-cache": {split.room}, "split-postgres": {split.room}}
        ahead = json.loads(await fleet.redis.get(room_key(split.room)))
        await fleet.redis.set(room_key(split.room), json.dumps({**ahead, "version": ahead["version"] + 1}))
        found = await told(fleet, "doctor", code=1)
        by_kind: dict[str, set[str]] = {}
        for finding in found["found"]:
            by_kind.setdefault(finding["kind"], set()).add(finding["where"])
        assert {kind: by_kind.get(kind, set()) & where for kind, where in places.items()} == places
        assert call.room not in {finding["where"] for finding in found["found"]}

        await fleet.redis.config_set("maxmemory-policy", "noeviction")
        fixed = await told(fleet, "doctor", "--fix", code=0)
        assert fixed["left"] == []
        repaired = {repair["kind"] for repair in fixed["repairs"] if repair["repaired"]}
        assert repaired >= places.keys() - {"redis-setting"}
        assert await fleet.redis.get(room_key(call.room)) == before
        await call.goes_on()
        await split.goes_on()


async def test_nothing_is_wrong_with_a_healthy_cluster(fleet: Fleet) -> None:
    healthy = await keepline("doctor", **of(fleet))
    assert (healthy.code, healthy.stdout.strip()) == (0, "Nothing is wrong.")


@pytest.mark.usefixtures("hasty_doctor")
async def test_stuck_events_and_a_missing_migration_need_a_person(fleet: Fleet) -> None:
    program = fleet.persister_programs[0]
    await program.kill()
    try:
        await fleet.open_room(uuid.uuid4(), uuid.uuid4())
        partitions = range(keys.DEFAULT_PARTITIONS)
        for partition in partitions:
            stream = keys.events(partition)
            read = await fleet.redis.xreadgroup("persister", "dead-worker", {stream: ">"})
            if read:
                ids = [entry for _, entries in read for entry, _ in entries]
                await fleet.redis.xclaim(stream, "persister", "dead-worker", 0, ids, idle=300_000)
        await in_postgres(fleet, "UPDATE keepline_migrations SET filename = 'x' || filename")
        found = await told(fleet, "doctor", code=1)
        kinds = {finding["kind"] for finding in found["found"]}
        assert kinds >= {"migrations", "stuck-events"}
        where = {finding["where"] for finding in found["found"] if finding["kind"] == "stuck-events"}
        assert where == {"persister dead-worker"}
    finally:
        await in_postgres(fleet, "UPDATE keepline_migrations SET filename = substr(filename, 2)")
        await program.start()
        await program.until_ready()


@pytest.mark.usefixtures("hasty_doctor")
async def test_a_cluster_without_nodes(fleet: Fleet) -> None:
    await asyncio.gather(*(program.kill() for program in fleet.programs))
    try:
        await fleet.redis.delete(*(keys.node(node.id) for node in fleet.nodes))
        found = await told(fleet, "status", code=1)
        assert {node["state"] for node in found["nodes"]} == {"dead"}
        findings = (await told(fleet, "doctor", code=1))["found"]
        assert "no-node" in {finding["kind"] for finding in findings}
        drain = await keepline("drain", "node-1", **of(fleet))
        assert (drain.code, "no node node-1 is alive" in drain.stderr) == (1, True)
    finally:
        await fleet.start(0, 1)

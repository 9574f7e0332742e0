"""`keepline up` as its users see it: a whole cluster from one command, and nothing left when it ends."""

import os
import shlex
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from keepline.cli.base import running
from keepline.cli.local.postgres import Postgres
from keepline.cli.local.servers import Valkey, ping
from tests.helpers.browsers import take_seat
from tests.helpers.cluster import Cluster, Up, running_cluster
from tests.helpers.commands import keepline_in
from tests.helpers.ports import free_block, free_port
from tests.helpers.waiting import eventually

on_shared_cluster = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster for tests that only look, which are marked `on_shared_cluster`."""
    async with running_cluster(nodes=2) as cluster:
        yield cluster


async def room_in_postgres(url: str, room_id: str) -> asyncpg.Record | None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchrow("SELECT * FROM active_rooms WHERE room_id = $1", uuid.UUID(room_id))
    finally:
        await connection.close(timeout=10)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


@on_shared_cluster
async def test_the_line_names_everything_that_runs(cluster: Cluster) -> None:
    line = cluster.line
    assert set(line) == {"nodes", "persisters", "redis", "postgres", "demo", "auth_secret", "service_key"}
    assert [set(node) for node in line["nodes"]] == [{"id", "ws", "http", "pid"}] * 2
    assert [set(persister) for persister in line["persisters"]] == [{"http", "pid"}]
    assert [set(line[server]) for server in ("redis", "postgres")] == [{"url", "pid"}] * 2
    assert [node["id"] for node in line["nodes"]] == ["node-1", "node-2"]
    first = int(line["nodes"][0]["ws"].split(":")[2].removesuffix("/v1"))
    assert line["nodes"][1] == {
        "id": "node-2",
        "ws": f"ws://127.0.0.1:{first + 10}/v1",
        "http": f"http://127.0.0.1:{first + 11}",
        "pid": line["nodes"][1]["pid"],
    }
    for program in (*line["nodes"], *line["persisters"], line["redis"], line["postgres"]):
        assert parent_of(program["pid"]) == cluster.up.pid
    for program in (*line["nodes"], *line["persisters"]):
        async with cluster.http.get(f"{program['http']}/readyz") as response:
            assert response.status == 200
    await ping(cluster.redis_url)


@on_shared_cluster
async def test_the_demo_page_opens_rooms_on_the_cluster(cluster: Cluster) -> None:
    async with cluster.http.get(cluster.demo) as response:
        assert response.status == 200
        assert "text/html" in response.headers["Content-Type"]
    for script in ("demo.js", "keepline.js"):
        async with cluster.http.get(cluster.demo + script) as response:
            assert response.status == 200
            assert "javascript" in response.headers["Content-Type"]
    async with cluster.http.post(f"{cluster.demo}demo/calls", json={"chat_mode": "text"}) as response:
        assert response.status == 201
        opened = await response.json()
    guest = await take_seat(cluster.http, opened["link"])
    assert [opened["urls"], guest.urls] == [
        [cluster.nodes[0].ws, cluster.nodes[1].ws],
        [cluster.nodes[1].ws, cluster.nodes[0].ws],
    ]
    room = await cluster.room(opened["room"], node=1)
    assert [room["user_1"], room["user_2"]] == [opened["user"], guest.user]
    assert room["chat_mode"] == "text"


@pytest.mark.timeout(240)  # four recoveries, each with patience for a busy machine
async def test_what_is_killed_comes_back_on_its_ports_with_what_it_had_and_it_is_said() -> None:
    # What the killed persister had read and not written is taken over after this many seconds.
    async with running_cluster(nodes=2, environ={"KEEPLINE_CLAIM_IDLE_SECONDS": "1"}) as cluster:
        room = await cluster.open_room(uuid.uuid4(), uuid.uuid4())
        line = cluster.line
        pids = {
            "node-2": line["nodes"][1]["pid"],
            "persister-1": line["persisters"][0]["pid"],
            "redis": line["redis"]["pid"],
            "postgres": line["postgres"]["pid"],
        }
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        again = [f"{name} is running again" for name in pids]
        await eventually(lambda: all(words in cluster.up.messages for words in again), timeout=60)
        for name, pid in pids.items():
            assert f"{name} (pid {pid}) ended: killed by SIGKILL; restarting it" in cluster.up.messages
        for node in range(2):
            await eventually(lambda: cluster.is_ready(node), timeout=60)  # noqa: B023 - awaited in the loop
            assert (await cluster.room(room["room_id"], node=node))["user_1"] == room["user_1"]
        await eventually(lambda: room_in_postgres(cluster.database_url, room["room_id"]), timeout=60)
        assert "node-1" not in cluster.up.messages
        now = running.read(cluster.data)
        assert now is not None
        assert now["nodes"][0]["pid"] == line["nodes"][0]["pid"]
        assert now["nodes"][1]["pid"] not in (line["nodes"][1]["pid"], None), (
            "the file tells of the second life"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_everything_in_order(number: signal.Signals) -> None:
    async with running_cluster(nodes=1) as cluster:
        pids = {
            program["pid"]
            for program in (*cluster.persisters, cluster.line["redis"], cluster.line["postgres"])
        }
        assert cluster.up.left().keys() > pids | {cluster.up.pid, cluster.nodes[0].pid}
        assert running.read(cluster.data) == {"up": cluster.up.pid, "settings": {}, **cluster.line}
        assert (cluster.data / running.FILE).stat().st_mode & 0o077 == 0
        assert await cluster.up.stop(number) == 0
        assert cluster.up.left() == {}
        assert running.read(cluster.data) is None
        assert await cluster.up.rest_of_stdout() == b""


async def test_a_signal_in_the_middle_of_the_start_ends_it_as_well(tmp_path: Path) -> None:
    up = await Up.start(tmp_path, tmp_path / "data", "--json", "--port", str(free_block(20)))
    try:
        await eventually(lambda: "starting PostgreSQL" in up.messages, timeout=60)
        assert await up.stop(signal.SIGINT) == 0
        assert await up.rest_of_stdout() == b""
        assert up.left() == {}
    finally:
        await up.clean_up()


async def test_a_second_signal_ends_everything_at_once() -> None:
    async with running_cluster(nodes=1, environ={"KEEPLINE_DRAIN_SECONDS": "60"}) as cluster:
        os.kill(cluster.nodes[0].pid, signal.SIGSTOP)
        os.kill(cluster.up.pid, signal.SIGTERM)
        await eventually(lambda: "stopping" in cluster.up.messages)
        assert await cluster.up.stop() == 0
        assert cluster.up.left() == {}


async def test_when_it_is_killed_it_leaves_no_child_and_can_be_started_again_at_once(tmp_path: Path) -> None:
    port = free_block(10)
    async with running_cluster(nodes=1, data=tmp_path / "data", port=port) as cluster:
        assert await cluster.up.stop(signal.SIGKILL) == -signal.SIGKILL
        async with running_cluster(nodes=1, data=tmp_path / "data", port=port) as second:
            assert await second.is_ready(0)
        await eventually(lambda: not cluster.up.left(), what="nothing outlives a killed keepline up")


async def test_commands_find_the_cluster_that_runs_in_their_folder(tmp_path: Path) -> None:
    environ = {"KEEPLINE_REDIS_PREFIX": "mine:"}
    away = await keepline_in(tmp_path, "status", REDIS_URL="")
    assert (away.code, away.stderr.count("\n")) == (2, 1)
    async with running_cluster(nodes=1, data=tmp_path / ".keepline", environ=environ) as cluster:
        room = await cluster.open_room(uuid.uuid4(), uuid.uuid4())
        # What a developer's shell names for another program is not mixed in.
        other = {"REDIS_URL": "", "DATABASE_URL": "postgresql://elsewhere", "COLUMNS": "80"}
        status = await keepline_in(tmp_path, "status", **other)
        assert (status.code, status.stderr) == (0, ""), status
        assert "node-1" in status.stdout
        rooms = await keepline_in(tmp_path, "rooms", **other)
        assert room["room_id"] in rooms.stdout
        assert rooms.stdout.endswith("1 room\n")
        assert (await keepline_in(tmp_path, "dead-letters", "list", **other)).stdout == "0 dead letters\n"
        assert (await keepline_in(tmp_path, "doctor", **other)).code == 0
        for output in (status.stdout, rooms.stdout):
            assert max(map(len, output.splitlines())) <= 80, output
        exports = (await keepline_in(tmp_path, "env")).stdout
        named = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
        assert {name: shlex.split(value)[0] for name, value in named.items()} == {
            "REDIS_URL": cluster.redis_url,
            "DATABASE_URL": cluster.database_url,
            "KEEPLINE_SERVICE_KEY": cluster.line["service_key"],
            "KEEPLINE_AUTH_SECRET": cluster.line["auth_secret"],
            "KEEPLINE_REDIS_PREFIX": "mine:",
        }


async def test_a_second_start_finds_the_rows_and_secrets_of_the_first(tmp_path: Path) -> None:
    async with running_cluster(nodes=1, data=tmp_path / "data") as cluster:
        first = cluster.line
        room = await cluster.open_room(uuid.uuid4(), uuid.uuid4(), chat_mode="text")
        await eventually(lambda: room_in_postgres(cluster.database_url, room["room_id"]))
    async with running_cluster(nodes=1, data=tmp_path / "data") as cluster:
        row = await room_in_postgres(cluster.database_url, room["room_id"])
        assert row is not None
        assert row["chat_mode"] == "text"
        assert (await cluster.room(room["room_id"]))["user_1"] == room["user_1"]
        for secret in ("auth_secret", "service_key"):
            assert cluster.line[secret] == first[secret]


async def refused(data: Path, port: int, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a `keepline up` that should end at once; returns its exit code and what it said."""
    up = await Up.start(data.parent, data, "--json", "--port", str(port), environ=environ)
    try:
        code = await up.wait()
        assert await up.rest_of_stdout() == b""
        return code, up.messages
    finally:
        await up.clean_up()


async def test_a_second_up_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with running_cluster(nodes=1, data=tmp_path / "data") as cluster:
        code, said = await refused(tmp_path / "data", free_block(20))
        assert (code, said.count("\n")) == (2, 1)
        assert f"keepline up (pid {cluster.up.pid}) is already running on {tmp_path / 'data'}" in said
        assert await cluster.is_ready(0)


async def test_a_busy_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    port = free_block(20)
    with socket.create_server(("127.0.0.1", port + 11)):
        code, said = await refused(tmp_path / "data", port)
    assert (code, said.count("\n")) == (2, 1)
    assert f"{port + 11} (node-2)" in said
    assert not (tmp_path / "data" / "postgres").exists()


async def test_servers_that_are_named_are_used_and_left_alone(
    tmp_path: Path, valkey: Valkey, postgres: Postgres
) -> None:
    environ = {"REDIS_URL": valkey.url, "DATABASE_URL": postgres.url}
    async with running_cluster(nodes=1, data=tmp_path / "data", environ=environ) as cluster:
        assert cluster.line["redis"] == {"url": valkey.url, "pid": None}
        assert cluster.line["postgres"] == {"url": postgres.url, "pid": None}
        room = await cluster.open_room(uuid.uuid4(), uuid.uuid4())
        await eventually(lambda: room_in_postgres(postgres.url, room["room_id"]))
    assert await room_in_postgres(postgres.url, room["room_id"])
    await ping(valkey.url)
    assert not (tmp_path / "data" / "postgres").exists()


async def test_a_named_server_that_is_away_is_one_line(tmp_path: Path, valkey: Valkey) -> None:
    environ = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    code, said = await refused(tmp_path / "data", free_block(20), environ)
    assert code == 1
    assert "keepline: the server of REDIS_URL does not answer" in said
    environ = {"REDIS_URL": valkey.url, "DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/keepline"}
    code, said = await refused(tmp_path / "data", free_block(20), environ)
    assert code == 1
    assert "keepline: the server of DATABASE_URL does not answer" in said


async def test_a_program_that_does_not_start_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('KEEPLINE_NODE_ID') == 'node-2':\n    raise SystemExit('no luck today')\n"
    )
    code, said = await refused(tmp_path / "data", free_block(20), {"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert "keepline: node-2 did not start (exit code 1)" in said
    assert "no luck today" in said


@on_shared_cluster
async def test_tokens_of_the_command_are_those_of_the_cluster(cluster: Cluster) -> None:
    user = uuid.uuid4()
    async with cluster.http.ws_connect(cluster.nodes[0].ws, protocols=["keepline.v1"]) as socket:
        await socket.send_json({"type": "hello", "token": cluster.token(user)})
        welcome: dict[str, Any] = await socket.receive_json(timeout=10)
    assert (welcome["type"], welcome["user"], welcome["node"]) == ("welcome", str(user), "node-1")

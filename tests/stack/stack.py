"""The cluster of deploy/compose.yaml, brought up for a test under a project of its own, and taken away after it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.helpers.certificates import self_signed
from tests.helpers.cluster import HTTP_SECONDS, Deployment
from tests.helpers.ports import free_block
from tests.helpers.waiting import eventually
from tests.stack.engine import Engine

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
WITH_TLS = ROOT / "deploy" / "compose.tls.yaml"
PROJECT = "keepline-test"
SUBNET = "172.31.251.0/24"
HOST = "172.31.251.1"
"""This machine on the stack's outer network: an address that clients and containers both reach."""

VERSION = "0.0.1-test"
UP_SECONDS = 300.0
ALERT_SECONDS = 90.0
SCRAPED_SECONDS = 60.0
BUILD_SECONDS = 600.0
NEEDED = ("haproxy", "redis", "postgres", "coturn", "prometheus")
"""The services whose images are somebody else's; the dashboard is left out."""


class Stack(Deployment):
    """The stack, with what an operator can see and do. Clients come in through the load balancer, over TLS.

    `plain` is its port without TLS.
    """

    def __init__(
        self,
        engine: Engine,
        options: tuple[str, ...],
        ports: dict[str, int],
        secrets: Path,
        http: aiohttp.ClientSession,
    ) -> None:
        balancer = {
            "id": "haproxy",
            "ws": f"wss://{HOST}:{ports['TLS']}/v1",
            "http": f"http://127.0.0.1:{ports['API']}",
            "pid": 0,
        }
        line = {
            "nodes": [balancer],
            "persisters": [],
            "redis": {"url": ""},
            "postgres": {"url": ""},
            "demo": "",
            "auth_secret": (secrets / "auth_secret").read_text().strip(),
            "service_key": (secrets / "service_key").read_text().strip(),
        }
        super().__init__(line, http)
        self.engine = engine
        self.options = options
        self.plain = f"ws://{HOST}:{ports['CLIENTS']}/v1"
        self.statistics = f"http://127.0.0.1:{ports['STATISTICS']}"
        self.prometheus = f"http://127.0.0.1:{ports['PROMETHEUS']}"
        self.turn = (HOST, ports["TURN"])

    def compose(self, *arguments: str, timeout: float = UP_SECONDS) -> str:
        """Run docker compose on the stack."""
        return self.engine.docker("compose", "-f", str(COMPOSE), *self.options, *arguments, timeout=timeout)

    def containers(self, service: str) -> list[str]:
        """Ids of the running containers of a service."""
        return self.compose("ps", "-q", service).split()

    def inspected(self, container: str) -> dict[str, Any]:
        """What the engine knows of a container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", container))[0]
        return found

    def inspected_network(self, name: str) -> dict[str, Any]:
        """What the engine knows of a network of the stack."""
        found: dict[str, Any] = json.loads(self.engine.docker("network", "inspect", f"{PROJECT}_{name}"))[0]
        return found

    def healthy(self, container: str) -> bool:
        """Whether it runs and its health check passes."""
        state = self.inspected(container)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def crash(self, container: str) -> None:
        """Kill its first process, as a fault would: the engine is to start it again."""
        os.kill(self.inspected(container)["State"]["Pid"], signal.SIGKILL)

    def ask(self, container: str, path: str) -> Any:
        """What the ops endpoint of one of our programs answers, from inside its container."""
        code = (
            "import sys, urllib.request as r\n"
            "sys.stdout.write(r.urlopen('http://127.0.0.1:8081' + sys.argv[1], timeout=5).read().decode())"
        )
        text = self.engine.docker("exec", container, "python", "-c", code, path)
        return json.loads(text) if path != "/metrics" else text

    def status(self) -> dict[str, Any]:
        """What `keepline status` says, asked in the container of a node; it exits with 1 when no node serves."""
        command = "keepline status --json || test $? -eq 1"
        found: dict[str, Any] = json.loads(
            self.engine.docker("exec", self.containers("node")[0], "sh", "-c", command)
        )
        return found

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Rows of a query, as Postgres writes them as JSON."""
        (postgres,) = self.containers("postgres")
        psql = ("psql", "-h", "127.0.0.1", "-U", "keepline", "-At", "-c")
        wrapped = f"SELECT coalesce(json_agg(q), '[]') FROM ({query}) q"
        password = 'export PGPASSWORD=$(cat /run/secrets/postgres_password); exec "$@"'
        rows: list[dict[str, Any]] = json.loads(
            self.engine.docker("exec", postgres, "sh", "-c", password, "sh", *psql, wrapped)
        )
        return rows

    async def balanced(self) -> int:
        """How many nodes the load balancer gives clients to."""
        async with self.http.get(f"{self.statistics}/metrics") as response:
            text = await response.text()
        start = 'haproxy_server_status{proxy="nodes",server="node-'
        return sum(line.startswith(start) and line.endswith('state="UP"} 1') for line in text.splitlines())

    async def balances(self, count: int) -> None:
        """Wait until so many nodes get clients."""

        async def does() -> bool:
            found = await self.balanced()
            assert found == count, f"{found} nodes"
            return True

        await eventually(does, timeout=60.0, interval=0.2, what=f"{count} nodes are balanced to")

    async def scale(self, count: int) -> None:
        """Run so many nodes."""
        arguments = (
            "up",
            "-d",
            "--no-deps",
            "--no-build",
            "--no-recreate",
            "--scale",
            f"node={count}",
            "node",
        )
        await asyncio.to_thread(self.compose, *arguments)
        await self.balances(count)

    async def roll(self, version: str) -> str:
        """Bring another version in with deploy/roll.py; returns what it said."""
        environ = {**self.engine.environ, "KEEPLINE_VERSION": version}
        command = [sys.executable, str(ROOT / "deploy" / "roll.py"), "--", *self.options]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env=environ,
            timeout=UP_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    async def alerts(self, alert: str, *states: str) -> None:
        """Wait until Prometheus has the alert in one of these states."""

        async def has() -> bool:
            async with self.http.get(f"{self.prometheus}/api/v1/alerts") as response:
                found = (await response.json())["data"]["alerts"]
            states_of = {(each["labels"]["alertname"], each["state"]) for each in found}
            assert any((alert, state) in states_of for state in states), states_of
            return True

        await eventually(has, timeout=ALERT_SECONDS, interval=0.5, what=f"{alert} is {' or '.join(states)}")

    async def scraped(self, job: str, count: int) -> None:
        """Wait until Prometheus reads the metrics of so many programs."""

        await self.measures(f'count(up{{job="{job}"}} == 1) == {count}')

    async def measures(self, condition: str) -> None:
        """Wait until Prometheus finds a condition to be true."""

        async def does() -> bool:
            query = {"query": condition}
            async with self.http.get(f"{self.prometheus}/api/v1/query", params=query) as response:
                return bool((await response.json())["data"]["result"])

        await eventually(does, timeout=SCRAPED_SECONDS, interval=0.5, what=condition)


def images() -> list[str]:
    """The images of others that the stack needs, and the one that ours is built on."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    base = dockerfile.partition("ARG PYTHON=")[2].split()[0]
    return [base, *(services[name]["image"] for name in NEEDED)]


def build(engine: Engine, version: str = VERSION) -> None:
    """Build our image."""
    arguments = ("--network", "host", "-f", str(ROOT / "deploy" / "Dockerfile"), "-t", f"keepline:{version}")
    engine.docker("build", "-q", *arguments, str(ROOT), timeout=BUILD_SECONDS)


@contextmanager
def _settings(folder: Path, ports: dict[str, int], certificate: Path) -> Iterator[Path]:
    """An environment file, with secrets beside it that deploy/secrets.sh has made."""
    for name in ("secrets.sh", "env.example"):
        (folder / name).write_bytes((ROOT / "deploy" / name).read_bytes())
    subprocess.run(["bash", folder / "secrets.sh"], check=True, timeout=30, stdout=subprocess.DEVNULL)
    settings = {
        "KEEPLINE_VERSION": VERSION,
        "KEEPLINE_SECRETS": str(folder / "secrets"),
        "KEEPLINE_BIND": HOST,
        "KEEPLINE_EDGE_SUBNET": SUBNET,
        "KEEPLINE_TLS_FILE": str(certificate),
        "KEEPLINE_TURN_URLS": f"turn:{HOST}:{ports['TURN']}",
        "KEEPLINE_TURN_CHECK_SECONDS": "5",
        "KEEPLINE_TURN_MIN_PORT": str(ports["RELAY"]),
        "KEEPLINE_TURN_MAX_PORT": str(ports["RELAY"] + 9),
        "KEEPLINE_CREATE_USERS": "true",
        # All clients of the test come from one address.
        "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "10000",
        "KEEPLINE_DRAIN_SECONDS": "10",
        "KEEPLINE_OPEN_FILES": "8192",
        **{f"KEEPLINE_{name}_PORT": str(port) for name, port in ports.items() if name != "RELAY"},
    }
    file = folder / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    yield file


@asynccontextmanager
async def running_stack(engine: Engine, nodes: int) -> AsyncIterator[Stack]:
    """The stack with so many nodes and Prometheus while the context is open; all of it is removed after."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first = free_block(20)
        names = ("CLIENTS", "TLS", "API", "STATISTICS", "PROMETHEUS", "TURN")
        ports = {name: first + offset for offset, name in enumerate(names)} | {"RELAY": first + 10}
        certificate = folder / "tls.pem"
        certificate.write_bytes(self_signed(HOST))
        # What clients of this process trust, however they make their connections.
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("SSL_CERT_FILE", str(certificate))
        file = stack.enter_context(_settings(folder, ports, certificate))
        timeout = aiohttp.ClientTimeout(total=HTTP_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        options = ("-f", str(WITH_TLS), "-p", PROJECT, "--env-file", str(file), "--profile", "monitoring")
        running = Stack(engine, options, ports, folder / "secrets", http)
        stack.callback(running.compose, "down", "--volumes", "--timeout", "15", "--remove-orphans")
        services = ("node", "persister", *NEEDED)
        running.compose("up", "-d", "--no-build", "--wait", "--scale", f"node={nodes}", *services)
        await running.balances(nodes)
        yield running

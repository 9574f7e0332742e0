#!/usr/bin/env python3
"""Roll out a new release in a running cluster, container by container, without interrupting calls.

First set KEEPLINE_VERSION in .env and pull or build the image. The script runs the migrations, which the old release
tolerates, and replaces the persisters; events wait for them meanwhile. Then, for each node, it starts a new one, waits
until the load balancer uses it, and drains an old one. There are never fewer nodes than before. Arguments after `--` go
to docker compose.

If a new node does not become healthy, it is removed, the old nodes keep serving, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COMPOSE = Path(__file__).resolve().parent / "compose.yaml"
HEALTHY_SECONDS = 120.0
BALANCED_SECONDS = 30.0
COMMAND_SECONDS = 600.0
POLL_SECONDS = 0.5


class RollFailed(Exception):
    """A step failed. The message says which one and why."""


def run(*command: str) -> str:
    """Run a command and return its output. Raises RollFailed with its error message."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RollFailed(f"{' '.join(command[:2])} … {command[-1]}: {said[-1] if said else done.returncode}")
    return done.stdout


def say(text: str) -> None:
    """Print a line of progress with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for the condition. Raises RollFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RollFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


class Project:
    """The containers of one compose project."""

    def __init__(self, options: Sequence[str]) -> None:
        self._compose = ("docker", "compose", "-f", str(COMPOSE), *options)

    def compose(self, *arguments: str) -> str:
        """Run docker compose."""
        return run(*self._compose, *arguments)

    def running(self, service: str) -> list[str]:
        """Ids of a service's running containers, oldest first."""
        found = self.compose("ps", "-q", service).split()
        return sorted(found, key=lambda container: str(inspected(container)["Created"]))

    def statistics(self) -> str | None:
        """URL of the load balancer's statistics; None if they are not published."""
        address = self.compose("port", "haproxy", "8404").strip()
        return f"http://{address}/;csv" if address else None


def inspected(container: str) -> dict[str, Any]:
    """The result of `docker inspect` for a container."""
    found: dict[str, Any] = json.loads(run("docker", "inspect", container))[0]
    return found


def is_healthy(container: str) -> bool:
    """Whether the health check passes. Raises RollFailed if the container has stopped or is unhealthy."""
    state = inspected(container)["State"]
    health = state.get("Health", {}).get("Status")
    if not state["Running"] or health == "unhealthy":
        log = run("docker", "logs", "--tail", "3", container).strip()
        raise RollFailed(f"the new container is {health or state['Status']}: {log}")
    return bool(health == "healthy")


def nodes_in_balance(statistics: str) -> int:
    """Number of nodes that the load balancer sends clients to."""
    try:
        with urllib.request.urlopen(statistics, timeout=5.0) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, urllib.error.URLError):
        return 0
    columns = lines[0].lstrip("# ").split(",")
    rows = [dict(zip(columns, line.split(","), strict=False)) for line in lines[1:]]
    return sum(
        row["pxname"] == "nodes" and row["svname"].startswith("node-") and row["status"].startswith("UP")
        for row in rows
    )


def replace_node(project: Project, old: str, count: int) -> None:
    """Start a new node, wait until it gets clients, and drain the old one. Raises RollFailed."""
    began = time.monotonic()
    before = set(project.running("node"))
    scale = f"node={len(before) + 1}"
    project.compose("up", "-d", "--no-deps", "--no-recreate", "--no-build", "--scale", scale, "node")
    (new,) = set(project.running("node")) - before
    try:
        wait_until(lambda: is_healthy(new), HEALTHY_SECONDS, "the new node is healthy")
        statistics = project.statistics()
        if statistics is not None:
            wait_until(
                lambda: nodes_in_balance(statistics) > count,
                BALANCED_SECONDS,
                "the load balancer uses the new node",
            )
    except RollFailed:
        run("docker", "rm", "-f", new)
        raise
    ready = time.monotonic()
    # `docker stop` waits for the container's stop_grace_period, which is longer than the drain window.
    run("docker", "stop", old)
    run("docker", "rm", old)
    took = time.monotonic()
    say(f"{new[:12]} for {old[:12]}: ready after {ready - began:.1f} s, drained in {took - ready:.1f} s")


def roll(project: Project) -> None:
    """Run the migrations, then replace persisters and nodes. Raises RollFailed."""
    say(project.compose("run", "--rm", "--no-deps", "-T", "migrate").strip().replace("\n", ", "))
    persisters = len(project.running("persister"))
    if persisters:
        scale = f"persister={persisters}"
        project.compose("up", "-d", "--no-deps", "--no-build", "--wait", "--scale", scale, "persister")
        say(f"persisters: {persisters}")
    old = project.running("node")
    for container in old:
        replace_node(project, container, len(old))
    say(f"nodes: {len(old)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "options", nargs="*", help="options of docker compose, after --: -p NAME, --env-file …"
    )
    try:
        roll(Project(parser.parse_args(arguments).options))
    except (RollFailed, subprocess.TimeoutExpired) as error:
        print(f"roll: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

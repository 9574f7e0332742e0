"""A docker command whose engine is a JSON file: just what deploy/roll.py asks of it. FAKE_DOCKER names the file."""

import json
import os
import sys
from pathlib import Path
from typing import Any

FILE = Path(os.environ["FAKE_DOCKER"])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def compose(state: dict[str, Any], arguments: list[str]) -> None:
    verb = next(word for word in arguments if word in ("ps", "up", "run", "port"))
    service = arguments[-2] if verb == "port" else arguments[-1]
    containers = state["services"].setdefault(service, [])
    if verb == "ps":
        say("\n".join(containers))
    elif verb == "run":
        say("up to date")
    elif verb == "up":
        name, _, count = arguments[arguments.index("--scale") + 1].partition("=")
        assert name == service
        assert "--no-deps" in arguments
        while len(containers) < int(count):
            state["started"] += 1
            containers.append(f"{service}-new-{state['started']}")


def plain(state: dict[str, Any], verb: str, container: str) -> None:
    nodes = state["services"]["node"]
    if verb == "inspect":
        new = "new" in container
        health = state["new_health"] if new else "healthy"
        created = f"2026-01-01T00:00:{len(container):02}"
        say(json.dumps([{"Created": created, "State": {"Running": True, "Health": {"Status": health}}}]))
    elif verb == "logs":
        say("REDIS_URL: required")
    elif verb in ("stop", "rm") and container in nodes:
        nodes.remove(container)


def main() -> None:
    state = json.loads(FILE.read_text())
    arguments = sys.argv[1:]
    if arguments[0] == "compose":
        compose(state, arguments[1:])
    else:
        plain(state, arguments[0], arguments[-1])
    state["log"].append({"command": arguments, "nodes": list(state["services"]["node"])})
    FILE.write_text(json.dumps(state))


main()

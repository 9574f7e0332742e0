"""The delivery state machine does what the shared vectors say; the browser SDK's tests run the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from keepline.client.delivery import Delivery
from keepline.client.outbox import Ticket

ROOM = "7d3c2a52-6a4e-4f5f-9d0a-0a4b6b1f6f01"
VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "delivery").glob("*.json"))
EVENTS = ("flow", "pause", "push", "signal", "ack", "peer_left", "hold", "fail", "tick")


class Runner:
    """One side, as the vectors speak of it."""

    def __init__(self) -> None:
        self.delivery = Delivery(ROOM, "me", 256, 1024 * 1024)
        self.tickets: dict[str, Ticket] = {}

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Carry out a step: what came of it."""
        delivery, now = self.delivery, step["at"]
        (event,) = (name for name in EVENTS if name in step)
        found: dict[str, Any] = {}
        delivery.outdated = False
        before = {name for name, ticket in self.tickets.items() if ticket.settled}
        match event, step[event]:
            case "flow", _:
                delivery.flow(now)
            case "pause", _:
                delivery.pause()
            case "push", {"ticket": name, "data": data}:
                self.tickets[name] = Ticket()
                delivery.push(orjson.dumps(data), self.tickets[name])
            case "signal", signal:
                received = delivery.receive(signal.get("stream"), signal.get("n"), signal["data"], now)
                found = {"delivers": received.data, "changed": received.changed}
            case "ack", ack:
                delivery.acknowledged(ack["stream"], ack["n"], now)
            case "peer_left", _:
                delivery.peer_left()
            case "hold", until:
                delivery.hold(until)
            case "fail", code:
                delivery.fail(code)
        writes = []
        while (frame := delivery.next(now)) is not None:
            writes.append(_short(orjson.loads(frame)))
        settled = {name: ticket.code for name, ticket in self.tickets.items() if ticket.settled}
        found["settles"] = {name: code for name, code in settled.items() if name not in before}
        return found | {"writes": writes, "outdated": delivery.outdated, "wakes": delivery.wake_at()}


def _short(frame: dict[str, Any]) -> list[Any]:
    assert frame["room"] == ROOM
    short = [frame["type"], frame["stream"], frame["n"]]
    return [*short, frame["data"]] if frame["type"] == "signal" else short


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text())
    runner = Runner()
    usual = {"writes": [], "delivers": [], "changed": False, "settles": {}, "outdated": False}
    for number, step in enumerate(vector["steps"]):
        found = runner.step(step)
        expected = usual | {name: value for name, value in step.items() if name in {*usual, "wakes"}}
        assert {name: found.get(name, usual.get(name)) for name in expected} == expected, (number, step)


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 15

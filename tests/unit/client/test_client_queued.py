"""A hello that the server has queued is waited for, in virtual time, on a socket that says what the test says."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection

from keepline.client.connection import Connection
from keepline.client.errors import RequestTimedOut
from keepline.client.models import Welcome
from keepline.client.options import Options
from tests.helpers.virtual_time import run_virtual
from tests.unit.client.scripted_node import ALICE

WELCOME = {
    "type": "welcome",
    "user": ALICE,
    "session": "s",
    "resume": "r",
    "resumed": False,
    "node": "n",
    "ice_servers": [],
    "rooms": [],
}
QUEUED = {"type": "queued", "ahead": 12, "wait_ms": 60_000}


class Socket:
    """Brings each frame so many seconds after the one before, then nothing."""

    def __init__(self, *frames: tuple[float, dict[str, Any]]) -> None:
        self._frames = list(frames)

    async def send(self, data: bytes, *, text: bool) -> None:
        pass

    async def recv(self, *, decode: bool) -> bytes:
        seconds, frame = self._frames.pop(0) if self._frames else (3600.0, WELCOME)
        await asyncio.sleep(seconds)
        return json.dumps(frame).encode()


def hello(*frames: tuple[float, dict[str, Any]]) -> tuple[object, int]:
    """What became of a hello, and how often its owner was told that it is queued."""
    told: list[None] = []

    async def say() -> object:
        connection = Connection(cast(ClientConnection, Socket(*frames)), Options())
        return await connection.hello("token", None, lambda: told.append(None))

    return run_virtual(say()), len(told)


def test_a_hello_that_is_queued_is_waited_for() -> None:
    welcome, told = hello(*[(5.0, QUEUED)] * 20, (9.0, WELCOME))
    assert isinstance(welcome, Welcome)
    assert told == 20


@pytest.mark.parametrize("frames", [[], [(9.0, QUEUED)] * 3])
def test_without_a_word_for_ten_seconds_it_is_given_up(frames: list[tuple[float, dict[str, Any]]]) -> None:
    with pytest.raises(RequestTimedOut):
        hello(*frames)

"""A client of protocol v1 with nothing but a WebSocket library, written from docs/protocol.md.

Whatever the server sends is held against docs/asyncapi.yaml: a frame that the document does not describe fails the
test that received it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it brings no types
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

Frame = dict[str, Any]

FRAME_SECONDS = 10.0
SUBPROTOCOL = Subprotocol("keepline.v1")
_DOCUMENT = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"


class BareClient:
    """One connection. Frames that come while an answer is awaited are kept and received later, in order."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._ids = itertools.count(1)
        self._kept: deque[Frame] = deque()

    @classmethod
    async def connect(cls, url: str, *, room: str | None = None, origin: str | None = None) -> BareClient:
        """Do the handshake, with the room as a hint when one is given."""
        websocket = await connect(
            url if room is None else f"{url}?room={room}",
            subprotocols=[SUBPROTOCOL],
            origin=None if origin is None else Origin(origin),
            compression=None,
            proxy=None,
            ping_interval=None,
            max_size=None,
            open_timeout=FRAME_SECONDS,
            close_timeout=1.0,
        )
        assert websocket.subprotocol == SUBPROTOCOL
        return cls(websocket)

    async def send(self, kind: str, **fields: Any) -> None:
        """Send a frame."""
        await self.send_text(json.dumps({"type": kind, **fields}, ensure_ascii=False))

    async def send_text(self, message: str | bytes | Iterable[str]) -> None:
        """Send a message that need not be a frame; several strings go as fragments."""
        async with asyncio.timeout(FRAME_SECONDS):
            await self.websocket.send(message)

    async def request(self, kind: str, **fields: Any) -> Frame:
        """Send a request and return its answer."""
        request_id = f"r{next(self._ids)}"
        await self.send(kind, id=request_id, **fields)
        passed: list[Frame] = []
        while (frame := await self.receive()).get("id") != request_id:
            passed.append(frame)
        self._kept.extendleft(reversed(passed))
        return frame

    async def ask(self, kind: str, answer: str, **fields: Any) -> Frame:
        """Send a request and return its answer, which has to be of that type."""
        frame = await self.request(kind, **fields)
        assert frame["type"] == answer, frame
        return frame

    async def refused(self, code: str, kind: str, **fields: Any) -> Frame:
        """Send a request that has to be refused; the error names the room if the request did."""
        frame = await self.ask(kind, "error", **fields)
        assert (frame["code"], frame.get("room")) == (code, fields.get("room")), frame
        return frame

    async def receive(self) -> Frame:
        """The next frame. Raises ConnectionClosed."""
        if self._kept:
            return self._kept.popleft()
        async with asyncio.timeout(FRAME_SECONDS):
            text = await self.websocket.recv()
        assert isinstance(text, str), "the server sends text only"
        frame: Frame = json.loads(text)
        check_frame(frame)
        return frame

    async def receive_within(self, seconds: float) -> Frame | None:
        """The next frame, None if there is none within that time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.receive()
        except TimeoutError:
            return None

    async def expect(self, kind: str, **fields: Any) -> Frame:
        """The next frame, which has to be of that type and to have these fields."""
        frame = await self.receive()
        assert frame == frame | {"type": kind, **fields}, frame
        return frame

    async def closed(self) -> int:
        """The code with which the connection is closed; no frame may come before."""
        frames, code = await self.rest()
        assert not frames, frames
        return code

    async def rest(self) -> tuple[list[Frame], int]:
        """All frames until the connection is closed, and the code of that close."""
        frames = []
        try:
            async with asyncio.timeout(2 * FRAME_SECONDS):
                while True:
                    frames.append(await self.receive())
        except ConnectionClosed as closed:
            return frames, 1006 if closed.rcvd is None else closed.rcvd.code

    def cut(self) -> None:
        """Break the TCP connection without a word."""
        self.websocket.transport.abort()

    async def aclose(self) -> None:
        """Close in order."""
        await self.websocket.close()


def _server_frames() -> dict[str, Draft202012Validator]:
    """A validator for each type that the document lets a node send."""
    document = yaml.safe_load(_DOCUMENT.read_text())
    sent = [operation for operation in document["operations"].values() if operation["action"] == "send"]
    replies = [operation["reply"] for operation in document["operations"].values() if "reply" in operation]
    names = {ref["$ref"].rpartition("/")[2] for part in (*sent, *replies) for ref in part["messages"]}
    validators = {}
    for name in names:
        payload = document["components"]["messages"][name]["payload"]
        schema = {**payload, "additionalProperties": False, "components": document["components"]}
        validators[payload["properties"]["type"]["const"]] = Draft202012Validator(schema)
    return validators


_VALIDATORS = _server_frames()


def check_frame(frame: Frame) -> None:
    """Fail unless docs/asyncapi.yaml describes the frame, with every field that it has."""
    assert frame.get("type") in _VALIDATORS, f"not a frame of the document: {frame}"
    wrong = [error.message for error in _VALIDATORS[frame["type"]].iter_errors(frame)]
    assert not wrong, f"{wrong} in {frame}"

"""The JSON of frames."""

from __future__ import annotations

from typing import Any

import orjson

from keepline.client.errors import ProtocolError, RequestFailed

Frame = dict[str, Any]


def encode(frame: Frame) -> bytes:
    """The text of a frame. Raises TypeError for what JSON does not know."""
    return orjson.dumps(frame)


def encoded(value: Any) -> orjson.Fragment:
    """A value encoded once, to be put into frames. Raises TypeError for what JSON does not know."""
    return orjson.Fragment(orjson.dumps(value))


def decode(data: bytes) -> Frame:
    """The frame behind a text message. Raises ProtocolError."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"a frame that is not JSON: {error}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError("a frame must be a JSON object with a type")
    return frame


def request_failed(frame: Frame) -> RequestFailed:
    """The exception for an `error` frame."""
    return RequestFailed(
        str(frame.get("code")), str(frame.get("message", "")), seconds(frame, "retry_after_ms")
    )


def seconds(frame: Frame, name: str) -> float | None:
    """A field in ms as seconds, None where it is missing. Raises TypeError when it is no number."""
    value = frame.get(name)
    return None if value is None else value / 1000

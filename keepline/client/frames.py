"""The JSON of frames."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

from keepline.client.errors import ProtocolError, RequestFailed

Frame = dict[str, Any]


def encode(frame: Frame) -> bytes:
    """Encode a frame. Raises TypeError for a value that is not JSON."""
    return orjson.dumps(frame)


def decode(data: bytes) -> Frame:
    """Decode the frame of a text message. Raises ProtocolError."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError:
        frame = _decode_leniently(data)
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise ProtocolError("a frame must be a JSON object with a type")
    return frame


def _decode_leniently(data: bytes) -> Any:
    """Parse JSON like a browser: 1E400 is infinite, and half a surrogate pair is a character.

    The peer may have written it, and the server forwards it without looking into it.
    """
    try:
        return json.loads(data, parse_int=_number, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame that is not JSON: {error}") from error


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python reads 4,300 digits, a float has 309
        return -math.inf if digits.startswith("-") else math.inf


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def request_failed(frame: Frame) -> RequestFailed:
    """The exception for an `error` frame."""
    return RequestFailed(
        str(frame.get("code")),
        str(frame.get("message", "")),
        seconds(frame, "retry_after_ms"),
        frame.get("reason"),
    )


def seconds(frame: Frame, name: str) -> float | None:
    """A field in ms as seconds; None if it is missing. Raises TypeError if it is not a number."""
    value = frame.get(name)
    return None if value is None else value / 1000

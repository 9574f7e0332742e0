"""Texts that are not valid frames, and what the client is told about them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.fields import ROOM_ID_LENGTH, RequestId

MAX_MESSAGE = 200
"""Maximum length of an error message about a frame, which must not echo the whole frame."""

_BYTE_ORDER_MARK = "\ufeff"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_BAD_LENGTH = re.compile(r"Expected `str` of length [<>]= \d+ - at `\$\.(text|reason)`")
"""How msgspec reports texts that users write."""


class BadFrame(Exception):
    """A text that is not a valid frame, with the message for the client.

    `kind` is its type, if it has one. `is_mistake`: a correct client may send it, if its user writes too much or pastes
    half a character. All others come from faulty clients only.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        request_id: RequestId | UnsetType = UNSET,
        room: str | None = None,
        *,
        kind: str | None = None,
        is_mistake: bool = False,
    ) -> None:
        super().__init__(message[:MAX_MESSAGE])
        self.code = code
        self.message = message[:MAX_MESSAGE]
        self.request_id = request_id
        self.room = room
        self.kind = kind
        self.is_mistake = is_mistake


def id_of(text: str) -> RequestId | UnsetType:
    """The id of a frame that is not processed, if it can be read."""
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return UNSET
    return _request_id(raw) if isinstance(raw, dict) else UNSET


def explain(text: str, why: str, types: Collection[str]) -> BadFrame:
    """Examine a refused frame again, slowly, to find what the client needs to know about it.

    `types` are the types that clients may send.
    """
    cut = False
    try:
        raw = msgspec.json.decode(text)
    except RecursionError:
        return BadFrame(ErrorCode.BAD_REQUEST, "nested too deeply")
    except (msgspec.MsgspecError, ValueError) as error:
        if text.startswith(_BYTE_ORDER_MARK):
            return BadFrame(ErrorCode.BAD_REQUEST, "not JSON: it begins with a byte order mark (U+FEFF)")
        if (raw := _with_half_characters(text)) is None:
            return BadFrame(ErrorCode.BAD_REQUEST, f"not JSON: {error}")
        cut, why = True, "a text contains half of a surrogate pair, as after cutting an emoji in two"
    if not isinstance(raw, dict):
        return BadFrame(ErrorCode.BAD_REQUEST, "a frame must be a JSON object")
    named, kind = (_request_id(raw), _room(raw)), raw.get("type")
    if isinstance(kind, str) and kind not in types:
        return BadFrame(ErrorCode.UNKNOWN_TYPE, f"unknown type {kind[:64]!r}", *named, kind=kind)
    kind = kind if isinstance(kind, str) else None
    mistake = cut or _BAD_LENGTH.fullmatch(why) is not None
    return BadFrame(ErrorCode.BAD_REQUEST, why, *named, kind=kind, is_mistake=mistake)


def _with_half_characters(text: str) -> Any:
    """The value of a text that would be JSON if halves of surrogate pairs were characters; None for all others."""
    if not _HALF_CHARACTER.search(text):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _room(raw: dict[str, Any]) -> str | None:
    room = raw.get("room")
    return room if isinstance(room, str) and len(room) == ROOM_ID_LENGTH else None


def _request_id(raw: dict[str, Any]) -> RequestId | UnsetType:
    try:
        request_id: RequestId = msgspec.convert(raw["id"], RequestId)
        return request_id
    except (KeyError, msgspec.ValidationError):
        return UNSET

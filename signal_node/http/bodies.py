"""Decodes the bodies of requests strictly. Invalid ones are answered with 400 and the reason."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from keepline.ops.http import HttpError

Body = TypeVar("Body")


def decode_body(body: bytes, kind: type[Body]) -> Body:
    """Decode a JSON body as `kind`. Raises HttpError 400."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, "bad_request", str(error)) from None

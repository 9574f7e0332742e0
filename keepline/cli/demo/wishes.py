"""Requests to the demo page's server, validated."""

from typing import Annotated, Literal, TypeVar

import msgspec

from keepline.ops.http import HttpError

_MOST_NODES = 1_000
_Index = Annotated[int, msgspec.Meta(ge=0, lt=_MOST_NODES)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

T = TypeVar("T", bound=msgspec.Struct)


class Wish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request for a new call. `nodes` has the index of the node that each side tries first."""

    chat_mode: Literal["video", "text"] = "video"
    duration_seconds: Annotated[int, msgspec.Meta(ge=0, le=1800)] = 0
    nodes: tuple[_Index, _Index] | None = None


class Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request for a seat in a call: the one of `key`, or any free one."""

    key: _Key | None = None


class Kill(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request to kill a node, with the key of a seat and the key of its button."""

    key: _Key
    kill_key: _Key
    node: _Name


class KillProgram(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request of `keepline kill` to kill any program of the cluster."""

    program: _Name


def parse(body: bytes, kind: type[T]) -> T:
    """Decode a request's body as a `kind`. Raises HttpError 400 that says what is wrong with it."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise HttpError(400, "bad_request", str(error)) from None


def parse_wish(body: bytes, nodes: int) -> Wish:
    """Decode a visitor's request. Raises HttpError 400 that says what is wrong with it."""
    wish = parse(body, Wish)
    if 0 < wish.duration_seconds < 60:
        raise HttpError(400, "bad_request", "duration_seconds should be 0 (no limit) or 60 to 1800")
    if wish.nodes is not None and max(wish.nodes) >= nodes:
        raise HttpError(400, "bad_request", f"nodes should be two indices from 0 to {nodes - 1}")
    return wish

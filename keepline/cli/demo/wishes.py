"""What visitors ask of the demo page's server, checked."""

from typing import Annotated, Literal, TypeVar

import msgspec

from keepline.ops.http import HttpError

_MOST_NODES = 1_000
_Index = Annotated[int, msgspec.Meta(ge=0, lt=_MOST_NODES)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

T = TypeVar("T", bound=msgspec.Struct)


class Wish(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A new call. `nodes` says which node each side tries first, by index."""

    chat_mode: Literal["video", "text"] = "video"
    duration_seconds: Annotated[int, msgspec.Meta(ge=0, le=1800)] = 0
    nodes: tuple[_Index, _Index] | None = None


class Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A seat in a call: the one that `key` opens, or any free one."""

    key: _Key | None = None


class Kill(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The end of a node, by SIGKILL: with the key of a seat and that of its button."""

    key: _Key
    kill_key: _Key
    node: _Name


class KillProgram(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The end of any program of the cluster, as `keepline kill` asks for it."""

    program: _Name


def parse(body: bytes, kind: type[T]) -> T:
    """Return a request's body as a `kind`; raises HttpError 400 that says what is wrong with it."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise HttpError(400, "bad_request", str(error)) from None


def parse_wish(body: bytes, nodes: int) -> Wish:
    """Return what a visitor asks for; raises HttpError 400 that says what is wrong with it."""
    wish = parse(body, Wish)
    if 0 < wish.duration_seconds < 60:
        raise HttpError(400, "bad_request", "duration_seconds should be 0 (no limit) or 60 to 1800")
    if wish.nodes is not None and max(wish.nodes) >= nodes:
        raise HttpError(400, "bad_request", f"nodes should be two indices from 0 to {nodes - 1}")
    return wish

"""The role of a signal in a negotiation, read from a frame that `client_frames.forwarded` has written.

This is on the path of every signal, so nothing is parsed. `client_frames` writes the fields in a fixed order without
spaces, no matter what the client sent.
"""

from __future__ import annotations

CANDIDATE = "candidate"

HEAD_BYTES = 150
"""How many bytes of a signal's data to search for its kind, which is past the name of the peer's stream."""

_BEFORE_ROOM = len(b'{"type":"signal","room":"')
_AFTER_ROOM = _BEFORE_ROOM + 36
_DATA = b'"data":{"'
_CANDIDATE = _DATA + b'candidate"'
_LAST_START = 192
"""The byte before which the data of our SDKs' signals begin, for streams and numbers of the usual length."""

_C, _D, _T = b"cdt"


def room_of(frame: bytes) -> str:
    """The room of a forwarded signal."""
    return frame[_BEFORE_ROOM:_AFTER_ROOM].decode(errors="replace")


def kind_of(frame: bytes) -> str | None:
    """The role of a peer-to-peer frame in a negotiation; None for other frames.

    For most signals, a candidate at the place where our SDKs put it decides; for others, the first letter of the data.
    """
    if frame.find(_CANDIDATE, _AFTER_ROOM, _LAST_START) > 0:
        return CANDIDATE
    at = frame.find(_DATA) + len(_DATA)
    letter = frame[at]
    if letter == _C:
        return CANDIDATE if frame.startswith(b'candidate"', at) else None
    if letter in (_D, _T):
        return _description(frame, at)
    return None


def _description(frame: bytes, at: int) -> str | None:
    """The same for data that start with `d`, or with `to` and then something else."""
    if frame.find(b'description"', at, at + HEAD_BYTES) < 0:
        return CANDIDATE if frame.find(b'"candidate"', at, at + HEAD_BYTES) >= 0 else None
    for kind in ("offer", "answer"):
        if frame.find(f'"{kind}"'.encode(), at, at + HEAD_BYTES) >= 0:
            return kind
    return "description"

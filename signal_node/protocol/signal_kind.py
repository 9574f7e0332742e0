"""What a signal does in a negotiation, told from the frame as `client_frames.forwarded` has written it.

This is on the path of every signal, so nothing is parsed. `client_frames` has written the order of the fields, and no
spaces between them, whatever the client sent.
"""

from __future__ import annotations

CANDIDATE = "candidate"

HEAD_BYTES = 150
"""How far into the data of a signal to look for what it is: past the name of the peer's stream."""

_BEFORE_ROOM = len(b'{"type":"signal","room":"')
_AFTER_ROOM = _BEFORE_ROOM + 36
_DATA = b'"data":{"'
_CANDIDATE = _DATA + b'candidate"'
_LAST_START = 192
"""Before which byte the data of our SDKs' signals begin, as far as their streams and numbers reach."""

_C, _D, _T = b"cdt"


def room_of(frame: bytes) -> str:
    """The room that a forwarded signal is of."""
    return frame[_BEFORE_ROOM:_AFTER_ROOM].decode(errors="replace")


def kind_of(frame: bytes) -> str | None:
    """What a frame from peer to peer does in a negotiation; None for nothing.

    A candidate where our SDKs put it decides for most of them, a glance at the first letter of the data for the others.
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
    """The same for data that begin with `d`, or with `to` and then something else."""
    if frame.find(b'description"', at, at + HEAD_BYTES) < 0:
        return CANDIDATE if frame.find(b'"candidate"', at, at + HEAD_BYTES) >= 0 else None
    for kind in ("offer", "answer"):
        if frame.find(f'"{kind}"'.encode(), at, at + HEAD_BYTES) >= 0:
            return kind
    return "description"

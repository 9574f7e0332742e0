"""Plays the example call of docs/protocol.md against a real cluster, line by line.

What the document abbreviates is bound to the real value where it is first met, and has to be that value from then
on: a room, a user, a resume secret, the time of a message. Everything else has to arrive as it is printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"
HEADING = "## A call from beginning to end"

ANY_OBJECT, ANY_LIST = "{…}", "[…]"
CHOSEN_BY_THE_SERVER = frozenset({"session", "resume", "node", "at"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a frame that `who` (A or B) sends or receives, or what is told in between."""

    kind: Literal["send", "receive", "story"]
    who: str = ""
    frame: Any = None
    text: str = ""


def example_call() -> list[Line]:
    """The lines of the example."""
    section = DOCUMENT.read_text().split(f"\n{HEADING}\n")[1]
    block = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [_line(text) for text in block[1].splitlines() if text.strip()]


def _line(text: str) -> Line:
    spoken = re.fullmatch(r"([AB])([→←]) (\{.*\})", text)
    if spoken is None:
        return Line("story", text=text.strip())
    who, arrow, frame = spoken.groups()
    for abbreviation in (ANY_OBJECT, ANY_LIST):
        frame = frame.replace(abbreviation, f'"{abbreviation}"')
    return Line("send" if arrow == "→" else "receive", who, json.loads(frame))


class Names:
    """What the abbreviations of the document stand for in this run."""

    def __init__(self, **known: Any) -> None:
        self._values: dict[Any, Any] = {f"{name}…": value for name, value in known.items()}

    def real(self, printed: Any) -> Any:
        """A printed frame as it is to be sent."""
        if isinstance(printed, dict):
            return {name: self.real(value) for name, value in printed.items()}
        return self._values.get(printed, printed)

    def differences(self, printed: Any, got: Any, at: str = "") -> Iterator[str]:
        """Where a received value is not what is printed."""
        field = at.rpartition(".")[2]
        if printed in (ANY_OBJECT, ANY_LIST):
            agree = isinstance(got, dict if printed == ANY_OBJECT else list)
        elif isinstance(printed, dict) and isinstance(got, dict) and printed.keys() == got.keys():
            for name, value in printed.items():
                yield from self.differences(value, got[name], f"{at}.{name}")
            return
        elif isinstance(printed, list) and isinstance(got, list) and len(printed) == len(got):
            for value, item in zip(printed, got, strict=True):
                yield from self.differences(value, item, at)
            return
        elif field in CHOSEN_BY_THE_SERVER:
            agree = self._values.setdefault(printed, got) == got
        else:
            agree = self.real(printed) == got
        if not agree:
            yield f"{at or 'frame'}: printed {printed!r}, got {got!r}"

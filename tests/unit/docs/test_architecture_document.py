"""The map in the architecture document leads to places that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_map_leads_to_places_that_exist() -> None:
    places = set(re.findall(r"`([\w.-]+(?:/[\w.-]*)+)`", section("If you want to change X, open Y")))
    assert len(places) > 25
    assert sorted(place for place in places if not (ROOT / place).exists()) == []


def test_every_module_of_a_node_stands_in_the_table() -> None:
    named: set[str] = set()
    package = ""
    for line in section("Inside a node").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            (package,) = re.findall(r"`(\w+)/`", cells[0]) or [package if not cells[0] else ""]
            folder = "" if "`__main__`" in cells[1] else f"{package}/"
            named |= {folder + name for name in re.findall(r"`(\w+)`", cells[1])}
    there = {
        str(path.relative_to(ROOT / "signal_node").with_suffix(""))
        for path in (ROOT / "signal_node").rglob("*.py")
    }
    there = {name for name in there if not name.endswith("__init__")}
    assert named == there


def test_the_tests_that_documents_name_exist() -> None:
    texts = [
        path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    ]
    named = {name for text in texts for name in re.findall(r"tests/[\w/]+\.py", text)}
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []

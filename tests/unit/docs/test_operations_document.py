"""docs/operations.md: what programs log is listed, and what is linked to is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
PROGRAMS = ("signal_node", "persister", "keepline/ops")
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
ROW = re.compile(r"^\| (`\w+`) \| (debug|info|warning|error) \|", re.MULTILINE)


def calls_of_the_log(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)) if level in LEVELS:
                yield node


def logged() -> dict[str, set[str]]:
    """Events with their levels. A name that is not written there is chosen among strings in the same function."""
    found: dict[str, set[str]] = {}
    for program in PROGRAMS:
        for path in sorted((ROOT / program).rglob("*.py")):
            for call in calls_of_the_log(path):
                assert isinstance(call.func, ast.Attribute)
                for name in names_of(call):
                    found.setdefault(name, set()).add(LEVELS[call.func.attr])
    return found


def names_of(call: ast.Call) -> Iterator[str]:
    for node in ast.walk(call.args[0]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def documented() -> dict[str, str]:
    return {name.strip("`"): level for name, level in ROW.findall(OPERATIONS.read_text())}


def test_every_event_of_the_logs_is_listed_and_every_listed_one_is_logged() -> None:
    events = logged()
    assert documented().keys() == events.keys()
    assert {name: {level} for name, level in documented().items()} == events


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["operations.md", "metrics.md", "migrating.md", "deploying.md"])
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / "docs" / name
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", path.read_text()):
        file = path if not target else path.parent / target
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_every_bad_day_names_tests_that_exist() -> None:
    section = OPERATIONS.read_text().split("\n## Bad days\n", 1)[1].split("\n## ", 1)[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")][2:]
    named = {name for row in rows for name in re.findall(r"`(test_\w+\.py)`", row)}
    assert len(rows) > 15
    assert [row for row in rows if "`test_" not in row] == []
    assert sorted(name for name in named if not list((ROOT / "tests").rglob(name))) == []

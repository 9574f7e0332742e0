"""The runbook (docs/operations.md and its pages): every log event is listed, and links and test names resolve."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
LOGS = DOCS / "operations" / "logs.md"
FAILURES = DOCS / "operations" / "failures.md"
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")))
PROGRAMS = ("signal_node", "persister", "keepline/ops")
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
ROW = re.compile(r"^\| (`\w+`) \| (debug|info|warning|error) \|", re.MULTILINE)


def calls_of_the_log(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)) if level in LEVELS:
                yield node


def logged() -> dict[str, set[str]]:
    """Events with their levels. Where code picks between two names, every string in the argument counts."""
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
    return {name.strip("`"): level for name, level in ROW.findall(LOGS.read_text())}


def test_documented_log_events_are_exactly_those_in_the_code() -> None:
    events = logged()
    assert documented().keys() == events.keys()
    assert {name: {level} for name, level in documented().items()} == events


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", path.read_text()):
        file = path if not target else path.parent / target
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_every_failure_scenario_names_tests_that_exist() -> None:
    section = FAILURES.read_text().split("\n## Failure scenarios\n", 1)[1].split("\n## ", 1)[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")][2:]
    named = {name for row in rows for name in re.findall(r"`(test_\w+\.py)`", row)}
    assert len(rows) > 15
    assert [row for row in rows if "`test_" not in row] == []
    assert sorted(name for name in named if not list((ROOT / "tests").rglob(name))) == []

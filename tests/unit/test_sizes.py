"""Nothing grows until it holds more than one idea: classes, functions and folders have a size."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("signal_node", "persister", "keepline", "bench", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

MAX_CLASS_LINES, MAX_FUNCTION_LINES, MAX_FILES = 250, 60, 20

LONGER_CLASSES = {
    "keepline/client/delivery.py": "one state machine, the same as the browser SDK's and run against the same vectors",
    "signal_node/transport/connection.py": "joins socket, framing, session and budget; a dozen lines over the limit",
    "tests/simulation/world.py": "the state of one simulated history, which all its faults change",
    "tests/helpers/browsers.py": "one method for each thing that a test does on the demo's page",
}
FULLER_FOLDERS = {
    "keepline/client": "the SDK is imported as one name; a module for each thing that its connection goes through",
    "keepline/ops": "small services that all programs share, each by itself",
    "tests/helpers": "a module for each server or peer that tests start",
}


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def too_long(path: Path) -> Iterator[str]:
    for node in definitions(path):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        limit = MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES
        if lines > limit:
            yield f"{node.name}: {lines} lines, {limit} at most"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", FOLDERS)
def test_classes_and_functions_are_short(folder: str) -> None:
    found = {
        name(path): list(too_long(path))
        for path in FILES
        if path.is_relative_to(ROOT / folder) and any(too_long(path))
    }
    excepted = {path for path in LONGER_CLASSES if path.startswith(f"{folder}/")}
    assert found.keys() == excepted, found


def test_folders_are_small() -> None:
    counts = Counter(
        name(path.parent)
        for path in FILES
        if not path.name.startswith(("__", "test_")) and path.name != "conftest.py"
    )
    assert {folder for folder, count in counts.items() if count > MAX_FILES} == set(FULLER_FOLDERS)


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("class Long:\n    def long(self):\n" + "        self.x = 1\n" * 300)
    assert list(too_long(path)) == ["Long: 302 lines, 250 at most", "long: 301 lines, 60 at most"]

"""Imports run one way: programs stand on the ground floor, the ground floor knows no program."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("keepline", "signal_node", "persister")

ALLOWED = {
    "keepline": (),
    "keepline.room": ("keepline.room",),
    "keepline.ops": ("keepline.ops", "keepline.room"),
    "keepline.client": ("keepline.client", "keepline.ops.backoff"),
    "keepline.cli": ("keepline.cli", "keepline.client", "keepline.ops", "keepline.room"),
    "signal_node": ("signal_node", "keepline.ops", "keepline.room"),
    "persister": ("persister", "keepline.ops", "keepline.room"),
}
"""What of ours each part may import; the longest name that fits a module decides."""

LAYERS = {
    "signal_node": [
        "protocol",
        "bus",
        "transport",
        "rooms",
        "users",
        "limits",
        "ice",
        "telemetry",
        "signaling",
        "cluster",
        "http",
        "wiring",
        "app",
        "metrics",
        "__main__",
    ],
    "keepline.cli": ["base", "demo", "local", "cluster", "reports", "commands", "main", "start"],
}
"""The packages inside a program, from the ground up: each may import itself and those before it."""

WITHOUT_IO = ("keepline.room", "signal_node.protocol")
"""What decides and leaves the doing to others."""

IO = ("asyncio", "socket", "ssl", "select", "selectors", "subprocess", "threading", "time")

THIRD_PARTIES_OF_THE_ROOM = ("msgspec", "orjson")


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Full names of all that a module's source imports, wherever in it and under whatever condition.

    `from a import b` counts as `a.b`, since b may be a module. Imports by a string count too.
    """
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from _imports_from(statement, module, is_package)
        elif isinstance(statement, ast.Call):
            yield from _imports_by_string(statement)


def _imports_from(statement: ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    origin = statement.module or ""
    if statement.level:
        parents = module.split(".")
        up = statement.level - 1 if is_package else statement.level
        origin = ".".join([*parents[: len(parents) - up], *filter(None, [origin])])
    yield from (origin if alias.name == "*" else f"{origin}.{alias.name}" for alias in statement.names)


def _imports_by_string(call: ast.Call) -> Iterator[str]:
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if function not in ("__import__", "import_module"):
        return
    first = call.args[0] if call.args else None
    if not isinstance(first, ast.Constant):
        yield "?"  # what cannot be read here cannot be checked
    elif isinstance(first.value, str):
        yield first.value


def wrong_imports(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that go against the direction."""
    allowed = ALLOWED[max((part for part in ALLOWED if is_in(module, part)), key=len)]
    names = set(imports_of(source, module, is_package=is_package))
    return sorted(name for name in names if name == "?" or _is_wrong(name, module, allowed))


def _is_above(name: str, module: str) -> bool:
    """Whether a module imports from a package that stands on its own."""
    for program, layers in LAYERS.items():
        heights = [_height(each, program, layers) for each in (name, module)]
        if None not in heights and heights[0] > heights[1]:  # type: ignore[operator]
            return True
    return False


def _height(name: str, program: str, layers: list[str]) -> int | None:
    inside = name.removeprefix(f"{program}.").partition(".")[0]
    return layers.index(inside) if is_in(name, program) and inside in layers else None


def _is_wrong(name: str, module: str, allowed: tuple[str, ...]) -> bool:
    if _is_above(name, module):
        return True
    if name in ("keepline", "keepline.__version__"):
        return is_in(module, "keepline.room")
    if any(is_in(name, package) for package in OURS):
        return not any(is_in(name, package) for package in allowed)
    if any(is_in(module, pure) for pure in WITHOUT_IO) and any(is_in(name, library) for library in IO):
        return True
    top = name.partition(".")[0]
    known = top in sys.stdlib_module_names or top in THIRD_PARTIES_OF_THE_ROOM
    return is_in(module, "keepline.room") and not known


FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("program", LAYERS)
def test_every_package_has_its_place_in_the_order(program: str) -> None:
    folder = ROOT / program.replace(".", "/")
    parts = {path.stem for path in folder.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert parts - {"__init__"} == set(LAYERS[program])


def test_all_parts_are_looked_at() -> None:
    modules = {module_name(path) for path in FILES}
    assert modules > {*OURS, "keepline.room.state", "keepline.ops.settings"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert wrong_imports(source, module_name(path), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("keepline.room.state", "from keepline.ops import settings"),
        ("keepline.room.state", "from keepline import ops"),
        ("keepline.room.state", "from .. import ops"),
        ("keepline.room.state", "from ..ops.settings import load"),
        ("keepline.room.state", "def late():\n    import keepline.client"),
        ("keepline.room.state", "if TYPE_CHECKING:\n    from persister.fold import Fold"),
        ("keepline.room.state", "import asyncio"),
        ("keepline.room.state", "from asyncio import sleep"),
        ("keepline.room.state", "import time"),
        ("keepline.room.state", "import redis.asyncio"),
        ("keepline.room.state", "import keepline"),
        ("keepline.ops.http", "import signal_node.protocol.session"),
        ("keepline.ops.http", "from persister import worker"),
        ("keepline.ops.http", "from keepline.cli import main"),
        ("keepline.ops.http", "from keepline.client import Keepline"),
        ("keepline.client.call", "from keepline.ops.settings import load"),
        ("keepline.client.call", "from keepline.room.record import Room"),
        ("keepline.cli.local.up", "from signal_node import __main__"),
        ("keepline.cli.local.up", "import importlib\nimportlib.import_module('persister.migrate')"),
        ("keepline.cli.local.up", "__import__(name)"),
        ("signal_node.rooms.cache", "from persister import migrate"),
        ("signal_node.rooms.cache", "from keepline.client import Keepline"),
        ("signal_node.rooms.cache", "import keepline.cli.local.up"),
        ("persister.worker", "from signal_node.rooms import cache"),
        ("signal_node.protocol.session", "import asyncio"),
        ("signal_node.protocol.session", "from asyncio import Queue"),
        ("keepline", "from keepline.client import Keepline"),
    ],
)
def test_a_wrong_import_would_be_found(module: str, source: str) -> None:
    assert wrong_imports(source, module) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("keepline.room.codec", "import orjson\nfrom datetime import UTC\nfrom keepline.room import keys"),
        ("keepline.room.codec", "from . import keys\nfrom .record import Room"),
        ("keepline.ops.http", "import asyncio\nimport aiohttp\nfrom keepline.room import keys"),
        ("keepline.client.call", "from keepline.ops.backoff import Backoff\nfrom . import errors"),
        ("keepline.cli.local.up", "import keepline\nfrom keepline.client import Keepline\nimport rich"),
        (
            "signal_node.rooms.cache",
            "import asyncio\nfrom keepline.room.state import apply\nfrom . import wire",
        ),
        ("signal_node.protocol.session", "from keepline.ops.settings import NodeSettings\nimport msgspec"),
        ("persister.worker", "from keepline.room import rows\nimport asyncpg"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert wrong_imports(source, module) == []


def test_relative_imports_of_a_package_count_from_itself() -> None:
    assert wrong_imports("from . import keys", "keepline.room", is_package=True) == []
    assert wrong_imports("from .. import ops", "keepline.room", is_package=True) == ["keepline.ops"]

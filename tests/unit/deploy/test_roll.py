"""deploy/roll.py: in which order containers come and go, and what is left when the new release does not start."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROLL = Path(__file__).parents[3] / "deploy" / "roll.py"
FAKE = Path(__file__).with_name("fake_docker.py")
OLD = ["node-1", "node-2"]


@pytest.fixture(name="roll")
def _roll() -> ModuleType:
    spec = importlib.util.spec_from_file_location("roll", ROLL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Docker:
    """The engine behind the fake command."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "engine.json"
        self.write(
            services={"node": OLD, "persister": ["persister-1"]}, started=0, new_health="healthy", log=[]
        )

    def write(self, **changes: Any) -> None:
        state = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._file.write_text(json.dumps(state | changes))

    @property
    def nodes(self) -> list[str]:
        found: list[str] = json.loads(self._file.read_text())["services"]["node"]
        return found

    @property
    def log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._file.read_text())["log"]
        return found


@pytest.fixture(name="docker")
def _docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    (tmp_path / "docker").write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "engine.json"))
    return Docker(tmp_path)


def test_each_node_is_replaced_and_there_are_never_fewer(
    roll: ModuleType, docker: Docker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roll.main(["--", "-p", "a-project"]) == 0
    assert docker.nodes == ["node-new-1", "node-new-2"]
    assert min(len(entry["nodes"]) for entry in docker.log) == len(OLD)
    verbs = [" ".join(entry["command"]) for entry in docker.log]
    assert all("-p a-project" in verb for verb in verbs if verb.startswith("compose"))
    order = [
        next(n for n, verb in enumerate(verbs) if word in verb) for word in ("run", "persister=1", "node=3")
    ]
    assert order == sorted(order), "migrations, then persisters, then nodes"
    assert [verb for verb in verbs if verb.startswith("stop")] == ["stop node-1", "stop node-2"]
    assert capsys.readouterr().out.endswith("nodes: 2\n")


def test_a_release_that_does_not_start_replaces_nothing(
    roll: ModuleType, docker: Docker, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.write(new_health="unhealthy")
    assert roll.main([]) == 1
    assert docker.nodes == OLD
    assert "the new container is unhealthy: REDIS_URL: required" in capsys.readouterr().err


def test_what_never_becomes_healthy_is_given_up(
    roll: ModuleType, docker: Docker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.write(new_health="starting")
    monkeypatch.setattr(roll, "HEALTHY_SECONDS", 0.01)
    monkeypatch.setattr(roll, "POLL_SECONDS", 0.01)
    assert roll.main([]) == 1
    assert docker.nodes == OLD
    assert "the new node is healthy: not within 0 s" in capsys.readouterr().err


def test_statistics_tell_how_many_nodes_get_clients(roll: ModuleType, tmp_path: Path) -> None:
    statistics = tmp_path / "statistics.csv"
    statistics.write_text(
        "# pxname,svname,status\nclients,FRONTEND,OPEN\nnodes,node-1,UP\nnodes,node-2,UP 1/2\nnodes,node-3,MAINT\n"
        "nodes,BACKEND,UP\nliving,node-1,UP\n"
    )
    assert roll.nodes_in_balance(statistics.as_uri()) == 2
    assert roll.nodes_in_balance((tmp_path / "absent").as_uri()) == 0

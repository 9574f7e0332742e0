"""The servers that run on Node.js, installed outside of the tree in pinned versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"socket.io": "4.8.4", "@socket.io/redis-adapter": "8.3.0", "redis": "5.9.0", "ws": "8.23.0"}
PEERS = Path(__file__).parent / "peers"
INSTALL_SECONDS = 180.0
OLDEST_NODE = 18


class Absent(Exception):
    """They cannot be measured here. The message says why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Node.js, and the folder with the relays and their packages."""

    node: Path
    folder: Path

    def command(self, relay: str, *options: str) -> tuple[str, ...]:
        """The command that runs a relay."""
        return (str(self.node), str(self.folder / relay), *options)


def install() -> Installed:
    """Install the packages into the user's cache if they are missing. Raises Absent."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Absent("node or npm is not on PATH")
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    if int(version.strip().lstrip("v").partition(".")[0] or 0) < OLDEST_NODE:
        raise Absent(f"Node.js {OLDEST_NODE} or newer is needed, here is {version.strip()}")
    folder = _cache() / "-".join(["node", *PACKAGES.values()])
    if not (folder / "installed").exists():
        _install(npm, folder)
    for script in PEERS.glob("*.mjs"):
        shutil.copy(script, folder)  # modules look for packages in their own folder
    return Installed(Path(node), folder)


def _install(npm: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"private": True, "type": "module", "dependencies": PACKAGES}
    (folder / "package.json").write_text(json.dumps(manifest))
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"npm install took more than {INSTALL_SECONDS:.0f} s") from None
    if done.returncode:
        raise Absent(f"npm install failed: {done.stderr.strip()[-300:]}")
    (folder / "installed").touch()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "keepline-bench"

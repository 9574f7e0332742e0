"""Install the packages of a lock into the virtual environment that runs this, then the checkout itself.

Shows its progress in one line on a terminal; pip's output goes to `install.log` in the environment. Fails with one line
when the network is away.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LOG = Path(sys.prefix) / "install.log"
PIP = (
    sys.executable,
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-input",
    "--progress-bar",
    "off",
)
PATIENCE = ("--retries", "2", "--timeout", "15")
OFFLINE = re.compile(
    "NewConnectionError|ConnectTimeout|NameResolutionError|ReadTimeout|ProxyError|Network is unreachable"
)
_LINE = 78


def install(lock: Path, say: Callable[[str], None], show: Callable[[str], None]) -> bool:
    """Install what is in `lock`, then the checkout; whether that worked. `show` gets passing news."""
    total = len(re.findall(r"^[\w.-]+==", lock.read_text(), re.MULTILINE))
    say(f"installing up to {total} packages into {Path(sys.prefix).name}; this happens once")
    packages = (*PIP, *PATIENCE, "--require-hashes", "-r", str(lock))
    checkout = (*PIP, "--no-deps", "--no-build-isolation", "-e", ".")
    lines: list[str] = []
    try:
        return all(_run(command, lines, total, show) for command in (packages, checkout)) or _explain(
            lines, say
        )
    finally:
        show("")
        LOG.write_text("".join(lines))


def _run(command: tuple[str, ...], lines: list[str], total: int, show: Callable[[str], None]) -> bool:
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            lines.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                done += 1
                name = (
                    line.removeprefix("Collecting ")
                    .removeprefix("Requirement already satisfied: ")
                    .split()[0]
                )
                show(f"{min(done, total)} of {total}: {name}")
            elif line.startswith("Installing collected"):
                show("unpacking")
    return pip.returncode == 0


def _explain(lines: list[str], say: Callable[[str], None]) -> bool:
    if any(OFFLINE.search(line) for line in lines):
        say(f"make: cannot download packages: is this machine offline? pip's output is in {LOG}")
        return False
    for line in lines:
        if line.startswith("ERROR"):
            say(line.rstrip())
    say(f"make: pip could not install the packages; its output is in {LOG}")
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _show(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:_LINE]}")
        sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.exit(0 if install(Path(sys.argv[1]), _say, _show) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
